"""What a layer's singular values say, with what they cannot say named."""

import math
from typing import Any, Literal

import torch

from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.marchenko_pastur import marchenko_pastur_outliers
from lsdr.statistics.power_law_exponent import power_law_exponent
from lsdr.statistics.stable_rank import stable_rank

Precision = Literal["float32", "float64"]
"""Of Gram matrices: float32 is faster, float64 resolves smaller values."""
POINTS = 64  # of a spectrum kept for plots
_FEWEST_FOR_A_TAIL = 10

NOTHING: dict[str, Any] = {
    "sigma_max": None,
    "lower": None,
    "upper": None,
    "method": "none: the weights are not finite",
    "stable_rank": None,
    "effective_rank": None,
    "power_law_exponent": None,
    "sigma_over_target": None,
    "condition_number": None,
    "marchenko_pastur_outliers": None,
    "dead_directions": None,
    "duplicated_directions": None,
    "frobenius": None,
    "spectrum": [],
}
"""What is said of weights that are not finite."""


def bounds(spectrum: Spectrum) -> dict[str, Any]:
    """The largest value with all that is known about it."""
    found: dict[str, Any] = {"sigma_max": float(spectrum.values[0])}
    for name, values in (("lower", spectrum.lower), ("upper", spectrum.upper), ("residual", spectrum.residual)):
        if values is not None:
            found[name] = float(values[0])
    return {**found, "method": spectrum.method}


def ranks(spectrum: Spectrum) -> dict[str, float]:
    """Stable and effective rank; 0 for a matrix of zeros."""
    if not float(spectrum.values[0]) > 0:
        return {"stable_rank": 0.0, "effective_rank": 0.0}
    return {"stable_rank": float(stable_rank(spectrum)), "effective_rank": float(effective_rank(spectrum))}


def tail(spectrum: Spectrum) -> dict[str, Any] | None:
    """Exponent of the tail with the values in it and its distance; None with too few values to fit one."""
    if int((resolved(spectrum) > 0).sum()) < _FEWEST_FOR_A_TAIL:
        return None
    try:
        fit = power_law_exponent(Spectrum.of(resolved(spectrum)))
    except ValueError:  # all values are equal
        return None
    return {"exponent": float(fit.exponent), "count": fit.count, "distance": float(fit.distance)}


def resolved(spectrum: Spectrum) -> torch.Tensor:
    """The values above their own uncertainty: at the bottom of a float32 Gram matrix there is only rounding."""
    if spectrum.lower is None:
        return spectrum.values
    return spectrum.values[: max(int((spectrum.lower > 0).sum()), 1)]


def condition(spectrum: Spectrum, stored: torch.dtype) -> dict[str, Any]:
    """Condition number, or why there is none and what it is at least.

    Args:
        spectrum: All singular values, with bounds.
        stored: Type of the weights in the file.
    """
    if not float(spectrum.values[0]) > 0:
        return {"condition_number": None, "condition_number_note": "all weights are zero"}
    if stored.itemsize < 4:
        name = str(stored).removeprefix("torch.")
        return {
            "condition_number": None,
            "condition_number_note": f"rounding to {name} decides the smallest singular values",
        }
    largest, smallest = float(spectrum.values[0]), float(spectrum.values[-1])
    if spectrum.lower is None or spectrum.upper is None:
        return {"condition_number": largest / smallest if smallest > 0 else None}
    lower, upper = float(spectrum.lower[-1]), float(spectrum.upper[-1])
    if lower > 0 and upper <= 1.1 * lower:
        return {"condition_number": largest / smallest}
    at_least = float(spectrum.lower[0]) / upper if upper > 0 else math.inf
    return {
        "condition_number": None,
        "condition_number_at_least": at_least if math.isfinite(at_least) else None,
        "condition_number_note": "the smallest singular values are below what the method resolves (exact: float64)",
    }


def outliers(spectrum: Spectrum, rows: int, columns: int) -> int:
    """Values above the Marchenko-Pastur edge of a random matrix with as large entries."""
    largest = float(spectrum.values[0])
    if not largest > 0:
        return 0
    # Relative to the largest: squares of very large or small float32 numbers are none.
    return int(marchenko_pastur_outliers(Spectrum.of(spectrum.values.double() / largest), rows, columns))


def quantiles(spectrum: Spectrum) -> list[float]:
    """At most 64 of the values, evenly spaced in rank, the first and the last included."""
    values = spectrum.values
    if len(values) > POINTS:
        values = values[torch.linspace(0, len(values) - 1, POINTS).round().long()]
    return [float(value) for value in values]
