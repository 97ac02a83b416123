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


def role(name: str, *, loose: bool = False) -> str:
    """What part a layer plays, wherever it stands: the last two parts of its name, less the numbers of blocks.

    Args:
        name: Of the layer.
        loose: Leave out numbers within the parts too, which may say which block it is (layer4) or what it does (attn2).

    Example:
        >>> role("down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q"), role("layer4.1.conv2", loose=True)
        ('attn1.to_q', 'layer#.conv2')
    """
    parts = [part for part in name.split(".") if not part.isdecimal()] or [""]
    parent = [re.sub(r"[0-9]+", "#", part) if loose else part for part in parts[-2:-1]]
    # kohya writes underscores for dots; a number that ends the layer's own name (conv2) is part of it.
    return ".".join([*parent, re.sub(r"(?<=_)[0-9]+(?=_|$)", "#", parts[-1])])


def standings(layers: Sequence[dict[str, Any]], values: Sequence[float | None]) -> list[Standing | None]:
    """Each layer's standing among those of its role, or if they are too few among those of its kind.

    Args:
        layers: Rows with "name" and "kind", and "component" where the file holds several models.
        values: Of each layer; None and what is not positive takes no part.

    Returns:
        Of each layer, in order; None for those that take no part or have too few peers.
    """
    logs = [math.log(value) if value is not None and 0 < value < math.inf else None for value in values]
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for layer, log in zip(layers, logs, strict=True):
        if log is not None:
            for key in _keys(layer):
                groups[key].append(log)
    for group in groups.values():
        group.sort()
    found: list[Standing | None] = []
    spreads: dict[tuple[str, ...], tuple[float, float]] = {}
    for layer, log in zip(layers, logs, strict=True):
        keys = [] if log is None else [key for key in _keys(layer) if len(groups[key]) > FEWEST]
        if log is None or not keys:
            found.append(None)
            continue
        group = groups[keys[0]]
        if len(group) > _MANY:  # one layer more or less moves no median: do not sort again for each
            if keys[0] not in spreads:
                spreads[keys[0]] = _middle_and_spread(group)
            middle, spread = spreads[keys[0]]
        else:
            place = bisect_left(group, log)
            middle, spread = _middle_and_spread(group[:place] + group[place + 1 :])
        words = f"{keys[0][-1]} layers"
        found.append(Standing(math.exp(log - middle), (log - middle) / spread, len(group) - 1, math.exp(middle), words))
    return found


def _keys(layer: dict[str, Any]) -> list[tuple[str, ...]]:
    """What the layer's groups are called, the closest first; the last word of each is for people."""
    of_kind = (str(layer.get("component", "")), str(layer["kind"]))
    exact, loose = role(layer["name"]), role(layer["name"], loose=True)
    return [("role", *of_kind, exact), ("loose", *of_kind, loose), ("kind", *of_kind)]


def _middle_and_spread(logs: list[float]) -> tuple[float, float]:
    """Median and robust standard deviation of sorted logarithms."""
    middle = median(logs)
    return middle, max(1.4826 * median(abs(log - middle) for log in logs), _SPREAD)
