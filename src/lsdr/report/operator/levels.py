"""What was measured of the denoising step at each noise level, as arrays; whatever is missing is NaN."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lsdr.report.plain import mapping, mappings, scalar, sequence, vector
from lsdr.report.thin import Array

Level = dict[str, Any]
_MOST = 30.0  # decibels


def levels_in(value: object) -> list[Level]:
    """The levels with a noise level above 0, the cleanest first.

    Example:
        >>> [level["sigma"] for level in levels_in([{"sigma": 2.0}, {"sigma": None}, {"sigma": 0.1}])]
        [0.1, 2.0]
    """
    found = [level for level in mappings(value) if 0 < scalar(level.get("sigma")) < math.inf]
    return sorted(found, key=lambda level: scalar(level["sigma"]))


def column(levels: Sequence[Level], name: str) -> Array:
    """One number a level.

    Example:
        >>> column([{"mse": 0.5}, {}], "mse")
        array([0.5, nan])
    """
    return np.array([scalar(level.get(name)) for level in levels], dtype=np.float64)


def ranks(levels: Sequence[Level], *path: str) -> Array:
    """A list a level as a matrix: a row a level, a column a rank; short lists are filled up with NaN.

    Example:
        >>> ranks([{"gains": [2.0, 1.0]}, {"gains": [3.0]}, {}], "gains")
        array([[ 2.,  1.],
               [ 3., nan],
               [nan, nan]])
    """
    rows = []
    for level in levels:
        value: object = level
        for name in path:
            value = mapping(value).get(name)
        rows.append(vector(sequence(value)))
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def calibration(levels: Sequence[Level]) -> Array:
    r"""By how many decibels the error that the Jacobian tells of exceeds the error measured, a value a level.

    .. math::
        10 \log_{10} \frac{\sigma^2 \operatorname{tr} J / d}{\mathrm{mse}}

    0 for the best denoiser; between -30 and 30, and -30 where the trace is not positive.

    Example:
        >>> calibration([{"sigma": 2.0, "trace": 0.5, "mse": 0.2}, {"sigma": 2.0, "trace": -0.1, "mse": 0.2}]).round(6)
        array([ 10., -30.])
    """
    told = column(levels, "sigma") ** 2 * column(levels, "trace")
    measured = column(levels, "mse")
    known = np.isfinite(told) & (measured > 0) & np.isfinite(measured)
    found = np.full(len(levels), np.nan)
    ratio = np.clip(told[known] / measured[known], 10 ** (-_MOST / 10), 10 ** (_MOST / 10))
    found[known] = 10 * np.log10(ratio)
    return found


def kept(levels: Sequence[Level], frame: str) -> tuple[Array, Array]:
    """The gain of a step along a direction of pure noise (eigenvalue 0) and of pure signal (eigenvalue 1).

    In the exploding frame these are sigma'/sigma and 1; in a frame that scales x by a(sigma) both are multiplied by
    a(sigma') / a(sigma), which passes 1: there the best denoiser's step grows as well.

    Example:
        >>> noise, signal = kept([{"sigma": 2.0, "sigma_next": 1.0}], "exploding")
        >>> float(noise[0]), float(signal[0])
        (0.5, 1.0)
    """
    sigma, following = column(levels, "sigma"), column(levels, "sigma_next")
    signal = _factor(following, frame) / _factor(sigma, frame)
    return signal * following / sigma, signal


def _factor(sigma: Array, frame: str) -> Array:
    if frame == "preserving":
        return 1 / np.sqrt(1 + sigma**2)
    return 1 / (1 + sigma) if frame == "flow" else np.where(np.isnan(sigma), np.nan, 1.0)
