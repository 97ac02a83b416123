"""What an inspection of the finished weights says, and where it is shown."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.report.load import Results
from lsdr.report.numbers import count, percent, plural
from lsdr.report.plain import mapping, mappings, read_object, scalar

_PAGE = "inspection.html"
_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Inspected:
    """A link and the main findings in one sentence."""

    page: str
    sentence: str


def inspected(results: Results, notes: list[str]) -> Inspected | None:
    """Where the inspection of a lone run is shown; None where there is no page of it."""
    if not results.single or not (results.directory / _PAGE).exists():
        return None
    found = read_object(results.directory / "inspection.json", notes)
    return Inspected(_PAGE, _sentence(found) if found else "")


def _sentence(inspection: dict[str, Any]) -> str:
    layers = mappings(inspection.get("layers"))
    parts = [_findings(mappings(inspection.get("findings")), len(layers))]
    changes = {str(layer.get("name")): mapping(layer.get("delta")) for layer in layers}
    sizes = {name: size for name, delta in changes.items() if math.isfinite(size := scalar(delta.get("relative")))}
    if sizes:
        most = max(sizes, key=lambda name: sizes[name])
        parts.append(f"the layer that changed most is {most}, by {percent(sizes[most]).lstrip('+')} of its norm")
    known = {
        name: intruders for name, delta in changes.items() if (intruders := scalar(delta.get("new_directions"))) > 0
    }
    if known:
        parts.append(
            f"{plural(int(sum(known.values())), 'direction')} in {plural(len(known), 'layer')} new to the base"
        )
    return "; ".join(parts) + "."


def _findings(findings: list[dict[str, Any]], layers: int) -> str:
    """How many findings there are of each severity, and the gravest in full."""
    if not findings:
        return f"Of {plural(layers, 'layer')} none stands out from its peers by more than clean models do"
    tally = {name: sum(each.get("severity") == name for each in findings) for name in _SEVERITIES}
    words = " and ".join(
        plural(amount, "remark" if name == "info" else name) for name, amount in tally.items() if amount
    )
    gravest = min(findings, key=lambda each: _rank(str(each.get("severity"))))
    text = str(gravest.get("text") or "").rstrip(".")
    layer = gravest.get("layer")
    named = text if not layer or str(layer) in text else f"{layer}: {text}"
    return f"{words or plural(len(findings), 'finding')} on {count(layers)} layers, the gravest “{named}”"


def _rank(severity: str) -> int:
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES)
