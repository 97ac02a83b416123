"""All rules, ranked."""

from collections.abc import Sequence
from typing import Any

from lsdr.inspection.findings import adapters, comparison, weights
from lsdr.inspection.findings.finding import Finding, ranked

RULES = (*weights.RULES, *comparison.RULES, *adapters.RULES)
KINDS = tuple(rule.__name__ for rule in RULES)


def find(layers: Sequence[dict[str, Any]]) -> list[Finding]:
    """Everything that the rules find in these layers, the worst first.

    Layers whose weights are not finite are judged by that rule alone.

    Args:
        layers: Rows of `inspect`.
    """
    finite = [layer for layer in layers if layer["sigma_max"] is not None]
    found = weights.nonfinite(layers)
    for rule in RULES:
        if rule is not weights.nonfinite:
            found += rule(finite)
    return ranked(found)
