"""What became of a GAN, for the terminal."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsdr import runs
from lsdr.gan.judge import judge
from lsdr.gan.measures.catalogue import MEASURES

_MIXTURE = ("modes", "high_quality", "reverse_kl", "precision", "recall", "coverage")
_CLASSES = ("modes", "reverse_kl", "precision", "recall", "coverage", "fid")
_IMAGES = ("precision", "recall", "density", "coverage", "fid", "kid", "copies")


def outcome(directory: Path) -> str:
    """The measures that answer whether modes were lost, a perfect sampler's beside them, and the answer.

    Args:
        directory: A run that is over, whether it has come to its samples or not.
    """
    measures, curves = runs.read_json(directory / "measures.json"), runs.read_json(directory / "curves.json")
    judged = judge(measures, curves, runs.read_json(directory / "data.json"))
    perfect: Mapping[str, Any] = curves.get("perfect") or {}
    total = judged["modes"].get("total")
    if total is None:
        names: tuple[str, ...] = _IMAGES
    else:
        names = _MIXTURE if judged["modes"]["kind"] == "mode" else _CLASSES
    rows = [("", "samples", "a perfect sampler")]
    for name in names:
        if name in measures:
            label = f"{MEASURES[name].label} (of {total})" if name == "modes" else MEASURES[name].label
            ideal = perfect.get(name)
            rows.append((label, _number(name, measures[name]), _number(name, ideal["mean"]) if ideal else ""))
    if len(rows) == 1:
        return "Is this mode collapse? It did not come to samples: training ended before its last step."
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in (1, 2))]).rstrip() for row in rows]
    return "\n".join([*lines, "", f"Is this mode collapse? {judged['answer']}"])


def _number(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if name == "modes":
        return f"{value:.0f}"
    if name in ("high_quality", "precision", "recall", "coverage", "copies"):
        return f"{100 * value:.1f} %"
    return f"{value:.3g}"
