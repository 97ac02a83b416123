"""What a layer is compared with: the layers that play the same part in other blocks."""

import math
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

FEWEST = 5  # other layers; the median of fewer says nothing
_MANY = 200
_SPREAD = 0.25  # smallest spread (of a logarithm) taken for real: peers that are equal by chance make no outliers


@dataclass(frozen=True)
class Standing:
    """Where a value stands among its peers'."""

    ratio: float
    """Value over the median of the peers."""
    deviations: float
    """The same on a logarithmic scale, in robust standard deviations of the peers; negative below the median."""
    peers: int
    """How many they are, the layer itself not counted."""
    median: float
    """Their median."""
    group: str
    """Who they are, in words."""


def role(name: str) -> str:
    """What part a layer plays, wherever it stands: the last two parts of its name, less the numbers of blocks.

    Example:
        >>> role("down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q"), role("layer4.1.conv2")
        ('attn1.to_q', 'layer#.conv2')
    """
    parts = [part for part in name.split(".") if not part.isdecimal()] or [""]
    # kohya writes underscores for dots; a number within the layer's own name (conv2) is part of it.
    leaf = re.sub(r"(?<=_)[0-9]+(?=_|$)", "#", parts[-1])
    return ".".join([*(re.sub(r"[0-9]+", "#", part) for part in parts[-2:-1]), leaf])


def standings(layers: Sequence[dict[str, Any]], values: Sequence[float | None]) -> list[Standing | None]:
    """Each layer's standing among those of its role, or if they are too few among those of its kind.

    Args:
        layers: Rows with "name" and "kind", and "component" where the file holds several models.
        values: Of each layer; None and what is not positive takes no part.

    Returns:
        Of each layer, in order; None for those that take no part or have too few peers.
    """
    logs = [math.log(value) if value is not None and 0 < value < math.inf else None for value in values]
    roles: dict[tuple[str, ...], list[float]] = defaultdict(list)
    kinds: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for layer, log in zip(layers, logs, strict=True):
        if log is not None:
            of_kind, of_role = _keys(layer)
            kinds[of_kind].append(log)
            roles[of_role].append(log)
    for group in (*roles.values(), *kinds.values()):
        group.sort()
    found: list[Standing | None] = []
    spreads: dict[tuple[str, ...], tuple[float, float]] = {}
    for layer, log in zip(layers, logs, strict=True):
        if log is None:
            found.append(None)
            continue
        of_kind, of_role = _keys(layer)
        alike = len(roles[of_role]) > FEWEST
        key = of_role if alike else of_kind
        group = (roles if alike else kinds)[key]
        if len(group) <= FEWEST:
            found.append(None)
            continue
        if len(group) > _MANY:  # one layer more or less moves no median: do not sort again for each
            if key not in spreads:
                spreads[key] = _middle_and_spread(group)
            middle, spread = spreads[key]
        else:
            place = bisect_left(group, log)
            middle, spread = _middle_and_spread(group[:place] + group[place + 1 :])
        words = f"{key[-1]} layers"
        found.append(Standing(math.exp(log - middle), (log - middle) / spread, len(group) - 1, math.exp(middle), words))
    return found


def _keys(layer: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the layer's kind and its role are called."""
    of_kind = (str(layer.get("component", "")), str(layer["kind"]))
    return of_kind, (*of_kind, role(layer["name"]))


def _middle_and_spread(logs: list[float]) -> tuple[float, float]:
    """Median and robust standard deviation of sorted logarithms."""
    middle = median(logs)
    return middle, max(1.4826 * median(abs(log - middle) for log in logs), _SPREAD)
