"""Every layer's spectrum in small, as SVG: hundreds of them weigh less than one interactive plot."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.report.plain import vector

_WIDTH, _HEIGHT = 88, 44
_DECADES = 4.0  # below 1e-4 of the largest value a float32 spectrum says little


@dataclass(frozen=True)
class Multiple:
    """One layer's spectrum, relative to its largest value, on a logarithmic scale of four decades."""

    name: str
    short: str
    points: str
    title: str


def multiples(layers: list[dict[str, Any]]) -> list[tuple[str, list[Multiple]]]:
    """Spectra by block, in model order; layers without a spectrum are left out."""
    blocks: dict[str, list[Multiple]] = {}
    for layer in layers:
        values = vector(layer.get("spectrum"))
        values = values[~(values < 0)]
        if len(values) < 2 or not values[0] > 0:
            continue
        name = str(layer["name"])
        block = str(layer["block"])
        step = _WIDTH / (len(values) - 1)
        points = " ".join(f"{step * place:.1f},{_height(value / values[0]):.1f}" for place, value in enumerate(values))
        title = f"{name}: {values[0]:.3g} to {values[-1]:.3g}"
        short = name.removeprefix(f"{block}.").removesuffix(".weight")
        blocks.setdefault(block, []).append(Multiple(name, short, points, title))
    return list(blocks.items())


def _height(relative: float) -> float:
    depth = -math.log10(relative) / _DECADES if relative > 0 else 1.0
    return 2 + (_HEIGHT - 4) * min(depth, 1.0)
