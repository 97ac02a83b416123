"""The table of noise levels, for the page and for the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lsdr.report.numbers import number
from lsdr.report.operator.levels import Level, calibration, column, ranks
from lsdr.report.thin import Array


@dataclass(frozen=True)
class Column:
    """One column: its name, what it is, and a cell for each level."""

    label: str
    hint: str
    cells: list[str]


def table(levels: Sequence[Level]) -> list[Column]:
    """The columns that hold anything, the noise level first; a row is a level.

    Example:
        >>> [(column.label, column.cells) for column in table([{"sigma": 0.5, "mse": 0.0123}])]
        [('σ', ['0.500']), ('MSE', ['0.0123'])]
    """
    sigma = column(levels, "sigma")
    told = sigma**2 * column(levels, "trace")
    columns = [
        Column("σ", "noise level", _plain(sigma)),
        Column("σ next", "noise level after the step", _plain(column(levels, "sigma_next"))),
        Column("largest μ", "largest eigenvalue of the denoiser's Jacobian, median over images", _plain(_top(levels))),
        Column("10–90 %", "the largest eigenvalue's 10th and 90th percentile over images", _band(levels)),
        Column("Gaussian", "largest eigenvalue for Gaussian data with the data's covariance",
               _plain(_first(levels, "gaussian"))),
        Column("gain", "of a small difference in the step, along the largest eigenvalue",
               _plain(_first(levels, "gains"))),
        Column("τ", "time scale 1/(1−μ) in units of ln σ; grows: the largest eigenvalue is 1 or more, differences grow",
               _times(levels)),
        Column("least μ", "smallest eigenvalue", _plain(column(levels, "smallest"))),
        Column("asym.", "departure from symmetry, 0 to 1", _plain(column(levels, "asymmetry"), 2)),
        Column("MSE", "squared error a pixel, measured", _plain(column(levels, "mse"))),
        Column("σ² tr J", "squared error a pixel, told by the Jacobian", _plain(told)),
        Column("gap dB", "told over measured, 0 for the best denoiser; none: what is told is below 0",
               _gaps(told, calibration(levels))),
    ]  # fmt: skip
    return [each for each in columns if any(cell != "—" for cell in each.cells)]


def _gaps(told: Array, decibels: Array) -> list[str]:
    pairs = zip(told, decibels, strict=True)
    return ["—" if math.isnan(gap) else "none" if error <= 0 else _decibels(gap) for error, gap in pairs]


def _decibels(gap: float) -> str:
    return f"{round(gap, 1) + 0.0:+.1f}".replace("-", "−")


def _plain(values: Array, digits: int = 3) -> list[str]:
    return [number(value, digits) for value in values]


def _first(levels: Sequence[Level], *path: str) -> Array:
    found = ranks(levels, *path)
    return found[:, 0] if found.shape[1] else column(levels, "")


def _top(levels: Sequence[Level]) -> Array:
    return _first(levels, "eigenvalues", "median")


def _band(levels: Sequence[Level]) -> list[str]:
    ends = zip(_first(levels, "eigenvalues", "low"), _first(levels, "eigenvalues", "high"), strict=True)
    return [f"{number(low)} to {number(high)}" if math.isfinite(low + high) else "—" for low, high in ends]


def _times(levels: Sequence[Level]) -> list[str]:
    pairs = zip(_first(levels, "time_scales"), _top(levels), strict=True)
    return ["grows" if value >= 1 or time < 0 else number(time) for time, value in pairs]
