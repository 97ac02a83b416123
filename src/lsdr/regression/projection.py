"""Removal of columns from a least-squares fit by projection: no refit, no new factor."""

import math

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.system import System
from lsdr.regression.triangular import solve_transposed, upper_factor, upper_inverse

# A removal can shorten a row of W that a removed column was collinear with; what it has lost is rounding from then on.
# By this much of its squared length since W was last brought up to date it is brought up to date again ...
_UPDATE = 1e-4
# ... and by this much since the last triangular factor, W starts again from a new factor of the columns left.
_REFACTOR = 1e-6
# Removals that wait before they are applied to W together: a matrix product instead of as many passes over memory.
_WAITING = 32
# Where as many columns are gone as are left, a new factor also makes W smaller.
_SMALL = 64


class Projection:
    r"""The coefficients of the columns left, their variances, and what removing a column does to them.

    With W = R^-1, w_j its row j, v = w_j / |w_j|: removing column j of R leaves

    .. math:: W \leftarrow W (I - v v^\top), \quad b \leftarrow b - W v \, (v^\top z), \quad
        C_{ii} \leftarrow C_{ii} - (w_i^\top v)^2, \quad \mathrm{RSS} \leftarrow \mathrm{RSS} + (v^\top z)^2,
        \quad (v^\top z)^2 = b_j^2 / C_{jj}

    which on C = W W' is the reverse sweep (Goodnight, The American Statistician 1979) and loses half the digits that
    the sweep loses, W having the root of C's condition number. For a group, v is an orthonormal basis of its rows
    (projections commute with the order within the group). Products W v wait and are applied together.

    Cost: O(k^2) a column, at the speed of one pass over W.

    Attributes:
        index: The column of the system that each place stands for, ascending; places of removed columns linger until
            the next update.
        present: Which places are still in the model, shape (k,).
        b: Coefficients in unit lengths; 0 to rounding where removed.
        diagonal: Diagonal of C = W W'; infinite where removed.
        objective: Penalised squared error, the target having length 1.
        origin: C m with m the means, in unit lengths.
        origin_square: m' C m.
    """

    def __init__(self, system: System) -> None:
        """Start with the full model."""
        self._system, self._means = system, system.mean / system.unit
        self.objective = system.objective
        self.index: NDArray[np.intp] = np.arange(len(system.columns))
        self._w, self._z = system.root_inverse, system.projection
        self._begin()
        self._least_factor = self.diagonal * _REFACTOR

    def _begin(self) -> None:
        """Everything that follows from W and z, every place being present."""
        k, wide = self._w.shape
        self._waiting = 0
        self._basis, self._image = np.empty((_WAITING, wide)), np.empty((_WAITING, k))
        self.present: NDArray[np.bool_] = np.ones(k, dtype=np.bool_)
        self.diagonal: NDArray[np.float64] = np.einsum("ij,ij->i", self._w, self._w)
        self.b: NDArray[np.float64] = self._w @ self._z
        image = self._means[self.index] @ self._w
        self.origin: NDArray[np.float64] = self._w @ image
        self.origin_square = float(image @ image)
        self._least = self.diagonal * _UPDATE
        self._penalised: NDArray[np.float64] | None = None
        if self._system.ridge:
            inverse = self._w @ self._w.T
            self._penalised = inverse - (inverse * self._system.penalty[self.index]) @ inverse

    def remove(self, place: int) -> None:
        """Remove the column at a place."""
        waiting = self._waiting
        row = self._w[place]
        if waiting:
            row = row - self._image[:waiting, place] @ self._basis[:waiting]
        length = math.sqrt(row @ row)
        basis, image = self._basis[waiting], self._image[waiting]
        np.divide(row, length, out=basis)
        np.dot(self._w, basis, out=image)
        step, step_origin = float(self.b[place]) / length, float(self.origin[place]) / length
        self.b -= image * step
        self.origin -= image * step_origin
        self.diagonal -= image * image
        self.objective += step * step
        self.origin_square -= step_origin * step_origin
        if self._penalised is not None:
            ratio, own = image / length, self._penalised[place]
            cross = np.outer(ratio, own - ratio * (0.5 * own[place]))
            self._penalised = self._penalised - cross - cross.T
        self.present[place] = False
        self.b[place] = self.origin[place] = 0.0
        self.diagonal[place] = np.inf
        self._waiting = waiting + 1
        if self._waiting == _WAITING or (self.diagonal < self._least).any():
            self.update()

    def remove_group(self, places: NDArray[np.intp]) -> None:
        """Remove several columns at once."""
        self.update()
        basis, step = self._group(places)
        self.objective += float(step @ step)
        self._w = self._w - (self._w @ basis) @ basis.T
        self.present[places] = False
        self.update()

    def gain(self, places: NDArray[np.intp]) -> float:
        """What weighs against removing several columns at once: b_g' V_gg^-1 b_g, V being C unless there is a penalty.

        Without a penalty, that is what the squared error rises by.
        """
        self.update()
        if self._penalised is not None:
            return float(self.b[places] @ np.linalg.solve(self._penalised[np.ix_(places, places)], self.b[places]))
        step = self._group(places)[1]
        return float(step @ step)

    def _group(self, places: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Orthonormal basis of the rows of W at some places, shape (K, m), and the part of z in it."""
        basis, upper = np.linalg.qr(self._w[places].T)
        return basis, solve_transposed(upper, self.b[places])

    @property
    def variances(self) -> NDArray[np.float64]:
        """Variances of the coefficients over the residual variance, unit lengths, infinite where removed, shape (k,).

        The diagonal of C; with a penalty that of V = C - C Lambda C = C X'X C.
        """
        if self._penalised is None:
            return self.diagonal
        return np.where(self.present, np.diagonal(self._penalised), np.inf)

    @property
    def mean_variance(self) -> float:
        """Variance over the residual variance of the prediction's part at the means, m' V m."""
        if self._penalised is None:
            return max(self.origin_square, 0.0)
        means = np.where(self.present, self._means[self.index], 0.0)
        return float(means @ self._penalised @ means)

    def inverse(self) -> NDArray[np.float64]:
        """C of the columns present, V where there is a penalty; afterwards every place is present."""
        self.update()
        return np.asarray(self._w @ self._w.T) if self._penalised is None else self._penalised

    def update(self) -> None:
        """Apply what waits, and close the gaps: afterwards every place is present."""
        left = self.present
        if left.all():
            return
        basis = self._basis[: self._waiting]
        self._w = self._w[left] - self._image[: self._waiting, left].T @ basis
        self.index, self._least_factor = self.index[left], self._least_factor[left]
        k, wide = self._w.shape
        lengths = np.einsum("ij,ij->i", self._w, self._w)
        if k and ((lengths < self._least_factor).any() or (wide >= _SMALL and 2 * k <= wide)):
            self._factor()
            lengths = np.einsum("ij,ij->i", self._w, self._w)
            self._least_factor = lengths * _REFACTOR
        self._begin()

    def _factor(self) -> None:
        """W and z from a new triangular factor of the columns left."""
        k = len(self.index)
        system = self._system
        full = upper_factor(np.column_stack([system.root[:, self.index], system.projection]), k)
        self._w = upper_inverse(np.ascontiguousarray(full[:k, :k]))
        self._z = full[:k, k].copy()
        self.objective = system.objective + float(full[k:, k] @ full[k:, k])
