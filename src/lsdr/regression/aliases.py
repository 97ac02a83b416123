"""Columns that say nothing the columns before them have not said: constant, duplicated, linear combinations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from lsdr.regression.columns import Column
from lsdr.regression.triangular import upper_factor

_EPS = float(np.finfo(np.float64).eps)
# Squared length left, of 1, below which cross-products cannot tell a column from a combination of the others.
GRAM_TOLERANCE = 1e-10
# Length left, of 1, for the triangular factor.
QR_TOLERANCE = 1e-13
# Roundings of the most offset column within which a column is looked at more closely.
_NEAR = 4e3
# Coefficients of a combination below this share of the largest are rounding.
_COEFFICIENT = 1e-5


@dataclass(frozen=True)
class Aliased:
    """A column that never enters the model.

    Attributes:
        column: The column.
        reason: "constant", "duplicate of <column>" or "aliased".
        of: The columns that it is a combination of.
    """

    column: Column
    reason: str
    of: tuple[Column, ...] = ()


def independent_in_gram(
    cross: NDArray[np.float64], priority: NDArray[np.intp], most: int, offset: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which columns to keep, judged from cross-products of columns of unit length.

    A column stays if its distance from the span of those of higher priority that stay is above the tolerance. Where a
    column's mean is far from 0, its values were rounded to the mean's last digit when they were stored; a distance
    within that rounding counts as none. Cost: one Cholesky factor where all stay, else O(p^3) in p steps.

    Args:
        cross: Shape (p, p), diagonal 1.
        priority: Columns from the highest priority to the lowest.
        most: How many can stay at most: the rows' degrees of freedom.
        offset: Root mean square about zero over that about the mean, shape (p,).
    """
    p = len(cross)
    ordered, offset = cross[np.ix_(priority, priority)], offset[priority]
    near = max(GRAM_TOLERANCE, (_NEAR * _EPS * float(offset.max(initial=0.0))) ** 2)
    root, info = lapack.dpotrf(ordered, lower=1)
    if info == 0 and p <= most and (np.diagonal(root) ** 2 > near).all():
        return np.ones(p, dtype=np.bool_)
    kept: list[int] = []
    factor = np.zeros((p, p), order="F")
    for place in range(p):
        size = len(kept)
        if size >= most:
            break
        row = ordered[place, kept]
        if size:
            row = lapack.dtrtrs(factor[:size, :size], row, lower=1)[0]
        left = 1.0 - row @ row
        if left <= GRAM_TOLERANCE or (
            left <= near and left <= _stored(factor[:size, :size].T, row, offset[kept], offset[place]) ** 2
        ):
            continue
        factor[size, :size], factor[size, size] = row, np.sqrt(left)
        kept.append(place)
    return _mask(priority, kept)


def independent_in_factor(
    factor: NDArray[np.float64], priority: NDArray[np.intp], most: int, offset: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which columns to keep, judged from the triangular factor with columns of unit length.

    As `independent_in_gram`, in the factor's own precision.

    Args:
        factor: Shape (m, p).
        priority: Columns from the highest priority to the lowest.
        most: How many can stay at most.
        offset: Root mean square about zero over that about the mean, shape (p,).
    """
    p = factor.shape[1]
    ordered, offset = factor[:, priority], offset[priority]
    near = max(QR_TOLERANCE, _NEAR * _EPS * float(offset.max(initial=0.0)))
    if p <= min(most, len(factor)):
        pivots = np.diagonal(upper_factor(ordered, p))
        if (pivots > near).all():
            return np.ones(p, dtype=np.bool_)
    kept: list[int] = []
    basis = np.zeros((len(factor), p), order="F")
    root = np.zeros((p, p), order="F")
    for place in range(p):
        size = len(kept)
        if size >= most:
            break
        span, rest = basis[:, :size], ordered[:, place]
        row = rest @ span
        rest = rest - span @ row
        again = rest @ span  # twice is enough (Giraud, Langou & Rozloznik 2005)
        rest, row = rest - span @ again, row + again
        left = float(np.sqrt(rest @ rest))
        if left <= QR_TOLERANCE or (
            left <= near and left <= _stored(root[:size, :size], row, offset[kept], offset[place])
        ):
            continue
        basis[:, size], root[:size, size], root[size, size] = rest / left, row, left
        kept.append(place)
    return _mask(priority, kept)


def described(
    gone: Sequence[Column],
    kept: Sequence[Column],
    combinations: NDArray[np.float64],
    same: NDArray[np.bool_],
    names: Sequence[str],
) -> list[Aliased]:
    """What the columns that left were combinations of.

    Args:
        gone: Columns that left.
        kept: Columns that stayed.
        combinations: Coefficients of each in those that stayed, unit lengths, shape (kept, gone).
        same: Where two columns have the same mean and scale, shape (kept, gone).
        names: What the kept columns are called.
    """
    found = []
    for place, column in enumerate(gone):
        size = np.abs(combinations[:, place])
        parts = np.flatnonzero(size > _COEFFICIENT * size.max(initial=0.0))
        of = tuple(kept[part] for part in parts.tolist())
        first = int(parts[0]) if len(parts) else 0
        twin = len(parts) == 1 and bool(same[first, place]) and combinations[first, place] > 0
        found.append(Aliased(column, f"duplicate of {names[first]}" if twin else "aliased", of))
    return found


def _stored(root: NDArray[np.float64], row: NDArray[np.float64], offset: NDArray[np.float64], own: np.float64) -> float:
    """How far rounding when they were stored keeps a column from a combination of others, columns of length 1."""
    combination = lapack.dtrtrs(root, row)[0] if len(row) else row
    return _EPS * float(np.hypot(own, np.linalg.norm(combination * offset)))


def _mask(priority: NDArray[np.intp], kept: list[int]) -> NDArray[np.bool_]:
    mask = np.zeros(len(priority), dtype=np.bool_)
    mask[priority[kept]] = True
    return mask
