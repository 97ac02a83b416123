"""How often each finding is a false alarm, as measured by benchmarks/findings_calibration.py."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("calibration.json")


@cache
def calibration() -> dict[str, Any]:
    """The measurement as written: "findings" by kind, "detection" by planted fault, "models" that were inspected."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def rates() -> dict[str, dict[str, Any]]:
    """For each kind of finding, how often it is said of clean models and layers.

    Returns:
        By kind: "per_model" and "per_layer", shares in [0, 1]; "per_model_upper" and "per_layer_upper", their upper
        confidence bounds (one-sided, 95%, Clopper-Pearson); "models" and "layers", how many there were;
        "trained_models" and "trained_upper", the same of those that were trained: the others are at their start, where
        less can look wrong.
    """
    return {kind: {name: each[name] for name in _SHOWN} for kind, each in calibration()["findings"].items()}


_SHOWN = (
    "per_model",
    "per_model_upper",
    "models",
    "trained_models",
    "trained_upper",
    "per_layer",
    "per_layer_upper",
    "layers",
)
