"""Held-out error of every size on the path, by K folds, from block moments: the rows are not read again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.block_systems import ErrorsOf, block_paths
from lsdr.regression.columns import Term
from lsdr.regression.gram import Gram
from lsdr.regression.path import Path
from lsdr.regression.r_factor import RFactor
from lsdr.regression.system import System


@dataclass(frozen=True, eq=False)
class Heldout:
    """Held-out error by size.

    Args:
        mse: (steps,) mean squared error over all the rows held out in turn, in squared units of the target.
        se: (steps,) its standard error.
        folds: (K, steps) mean squared error of every fold.
        weights: (K,) sum of the weights of every fold's rows (their number where unweighted).
    """

    mse: NDArray[np.float64]
    se: NDArray[np.float64]
    folds: NDArray[np.float64]
    weights: NDArray[np.float64]


def heldout(
    state: Gram | RFactor,
    folds: Sequence[Iterable[int]],
    terms: tuple[Term, ...],
    sizes: NDArray[np.integer],
    *,
    ridge: float | int = 0.0,
    errors: ErrorsOf | None = None,
) -> Heldout | None:
    r"""Cross-validated error of the model of every size, the elimination run anew without each fold.

    With the means m and centred cross-products S of the rows held out, and a = [-b, 1] from the other rows:

    .. math:: \mathrm{SSE} = a^\top S_{te}\, a + n_{te} \bigl(a^\top (m_{te} - m_{tr})\bigr)^2

    or, from a triangular factor R of the rows held out, the squared length of R a, which loses no digits to squaring.
    Equal to refitting row by row but for rounding. Folds that are empty are left out. Where a fold's training rows
    can tell fewer terms apart than all rows can, their largest model stands for all larger ones.

    The mean is pooled over rows, so that folds count by their weight; the standard error is the weighted deviation of
    the folds about it, over the root of K - 1 (that over the root of K of the plain deviation where folds are equal),
    as in the R package glmnet. Folds share training rows, so it is a guide rather than a deviation to test with.

    Cost: K eliminations, O(K p^3), and O(K p^2 steps).

    Args:
        state: Block moments or factors.
        folds: The blocks of every fold.
        terms: Candidate terms (the ones that all rows together can tell apart).
        sizes: (steps,) sizes of the models on the whole path.
        ridge: Penalty, as on the whole path.
        errors: Makes the robust errors by which terms go; None: classical ones.

    Returns:
        None where fewer than two folds have rows.
    """
    groups = [sorted(fold) for fold in folds]
    weights = np.array([state.weights[group].sum() for group in groups], dtype=np.float64)
    groups = [group for group, weight in zip(groups, weights, strict=True) if weight > 0]
    weights = weights[weights > 0]
    if len(groups) < 2:
        return None
    everything = {block for group in groups for block in group}
    training = [sorted(everything.difference(group)) for group in groups]
    paths = block_paths(state, training, terms, ridge=ridge, errors=errors)
    residuals = [_directions(system, path, state, sizes) for system, path in paths]
    sse = _by_gram(state, groups, residuals) if isinstance(state, Gram) else _by_factor(state, groups, residuals)
    by_fold = sse / weights[:, None]
    share = weights[:, None] / weights.sum()
    mse = (share * by_fold).sum(0)
    se = np.sqrt((share * (by_fold - mse) ** 2).sum(0) / (len(groups) - 1))
    return Heldout(mse, se, by_fold, weights)


# The residual of one size is linear in [x, y]: its direction a (steps, D), and its value at the origin (steps,).
_Residuals = tuple[NDArray[np.float64], NDArray[np.float64]]


def _directions(system: System, path: Path, state: Gram | RFactor, sizes: NDArray[np.integer]) -> _Residuals:
    """Residuals a'z - c of every size, z relative to the training mean (to 0 without an intercept)."""
    place = {column: position for position, column in enumerate(state.columns)}
    positions = [place[column] for column in system.columns]
    steps = np.minimum(np.searchsorted(-path.size, -sizes), len(path.size) - 1)
    width = len(state.columns) + 1
    direction = np.zeros((len(sizes), width))
    direction[:, positions] = -np.nan_to_num(path.coefficients[steps])
    direction[:, -1] = 1.0
    origin = np.zeros(width)
    if system.intercept:
        origin[positions] = system.mean
        origin[-1] = system.mean_y
    return direction, origin


def _by_gram(state: Gram, groups: list[list[int]], residuals: list[_Residuals]) -> NDArray[np.float64]:
    sse = []
    for moments, (direction, origin) in zip(state.totals(groups), residuals, strict=True):
        within = ((direction @ moments.cross) * direction).sum(1)
        # Rounding of cross-products: residuals below it are none.
        within[within <= np.finfo(np.float64).eps * len(origin) * moments.cross[-1, -1]] = 0.0
        sse.append(within + moments.count * (direction @ (moments.mean - origin)) ** 2)
    return np.array(sse)


def _by_factor(state: RFactor, groups: list[list[int]], residuals: list[_Residuals]) -> NDArray[np.float64]:
    sse = []
    for group, (direction, origin) in zip(groups, residuals, strict=True):
        factor = state.factor(group)
        if state.intercept:
            direction = np.column_stack([direction @ (state.shift - origin), direction])
        sse.append(((factor @ direction.T) ** 2).sum(0))
    return np.array(sse)
