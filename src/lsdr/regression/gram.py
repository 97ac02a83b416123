"""Centred cross-products of the design and the target by block of rows: all that least squares needs, in one pass."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lsdr.moments import Moments
from lsdr.regression.batch import Batch, Values, rows_of
from lsdr.regression.block_products import block_products, near_mean
from lsdr.regression.block_state import BlockState
from lsdr.regression.columns import Column, column_name
from lsdr.regression.shifted_rows import aligned, check, refuse_values, together

# Rows are squared again, about a mean of their own, where centring left less than this of a sum of squares.
_LEAST_KEPT = 1e-6
# Numbers below this have squares that have lost digits, or vanished.
_LEAST_VALUE = 1e-140
# A standard deviation of fewer roundings of the mean than this is none.
_ROUNDINGS = 16


class Gram(BlockState):
    r"""Sum of weights, mean and centred cross-products of rows z = [x, y], for each block of rows.

    .. math:: W_b = \sum_{n \in b} w_n, \quad \bar z_b = \tfrac1{W_b} \sum_{n \in b} w_n z_n, \quad
        S_b = \sum_{n \in b} w_n (z_n - \bar z_b)(z_n - \bar z_b)^\top

    Rows are squared about a mean of the batch they come in, and merged by the pairwise formula of Chan, Golub &
    LeVeque (The American Statistician 1983, see `lsdr.moments.Moments`), so that means far from zero, or that drift
    through the file, cost no digits. Means are kept relative to one shift, that of the first batch.

    Columns are matched by name: a dummy that has not been seen was 0 in every row so far, which is exact.
    State: blocks (p + 1)^2 numbers, whatever the number of rows. Cost: n (p + 1)^2 multiplications.

    Example:
        >>> gram = Gram(blocks=2)
        >>> x, y = np.array([[1.0], [2.0], [3.0], [6.0]]), np.array([1.0, 3.0, 5.0, 7.0])
        >>> gram.add(Batch((("area", ""),), x, y, weights=None, clusters=None, blocks=np.array([0, 0, 1, 1])))
        >>> gram.total().mean, gram.total([1]).mean
        (array([3., 4.]), array([4.5, 6. ]))
        >>> gram.total().cross
        array([[14., 16.],
               [16., 20.]])
    """

    def __init__(self, blocks: int, intercept: bool = True, frequency: bool = False) -> None:
        """Start empty.

        Args:
            blocks: Number of blocks.
            intercept: Whether the model has one. The state is the same without; `total` is read otherwise.
            frequency: Whether weights count rows; they must be whole numbers then.
        """
        super().__init__(blocks, intercept, frequency, ())
        self._shift: NDArray[np.float64] | None = None
        # How far from the shift a column's rows have been centred: rounding is relative to that.
        self._reach: NDArray[np.float64] = np.zeros(1)
        self._relative: NDArray[np.float64] = np.zeros((blocks, 1))
        self._cross: NDArray[np.float64] = np.zeros((blocks, 1, 1))

    def add(self, batch: Batch) -> None:
        """Add the rows of a batch.

        Raises:
            ValueError: If weights are negative or (as frequencies) not whole, or values or squares not finite.
        """
        check(batch, self.blocks, self.frequency)
        self._include(batch.columns)
        with np.errstate(invalid="ignore", over="ignore"):
            finite = self._add_rows(aligned(batch, self.columns), batch.y, batch.weights, batch.blocks)
        if not finite:
            refuse_values(batch)
        self.tally.add(batch)

    def _add_rows(
        self,
        x: Values,
        y: NDArray[np.float64],
        weights: NDArray[np.float64] | None,
        block: NDArray[np.intp],
    ) -> bool:
        """Merge the rows' moments into the state; False where they are not finite."""
        if not (len(y) if weights is None else weights.any()):
            return True
        held = self.tally.weights.copy()
        shift = near_mean(x, y, weights)
        if self._shift is None:
            self._shift = shift
        self._reach = np.maximum(self._reach, np.abs(shift - self._shift))
        for numbers, products, rows in block_products(x, y, weights, block, shift):
            raw = _squares(products).copy()
            if not np.isfinite(raw).all():
                return False
            _centre(products)
            # Seldom: some column's block is far from the batch's mean, or constant. About its own mean, then.
            for at in np.flatnonzero((_squares(products) < _LEAST_KEPT * raw).any(1)):
                own = np.arange(len(y))[rows][block[rows] == numbers[at]]
                there = None if weights is None else weights[own]
                mean = shift + products[at, 0, 1:]
                nought = np.zeros(len(own), np.intp)
                ((_, again, _),) = block_products(np.ascontiguousarray(rows_of(x, own)), y[own], there, nought, mean)
                products[at] = _centre(again)[0]
                products[at, 0, 1:] += mean - shift
            weight = products[:, 0, 0]
            total = held[numbers] + weight
            delta = (shift - self._shift) + (products[:, 0, 1:] - self._relative[numbers])
            factors = held[numbers] / total * weight
            for index, number in enumerate(numbers):
                self._cross[number] += products[index, 1:, 1:]
                self._cross[number] += np.multiply.outer(delta[index], delta[index] * factors[index])
            self._relative[numbers] += delta * (weight / total)[:, None]
            held[numbers] = total
        return True

    def merge(self, other: "Gram") -> "Gram":
        """Add the rows of another state in place and return self; `other` stays as it is.

        Raises:
            ValueError: If the states differ in blocks, intercept or the meaning of weights.
        """
        self._refuse_unlike(other)
        self._include(other.columns)
        if other._shift is not None:
            shift, reach, relative, cross = other._padded(self.columns)
            if self._shift is None:
                self._shift = shift
            self._reach = np.maximum(self._reach, reach + np.abs(shift - self._shift))
            held, weights = self.tally.weights, other.tally.weights
            total = np.maximum(held + weights, np.finfo(float).tiny)
            delta = (shift - self._shift) + (relative - self._relative)
            for number, factor in enumerate(held / total * weights):
                self._cross[number] += cross[number]
                self._cross[number] += np.multiply.outer(delta[number], delta[number] * factor)
            self._relative = self._relative + delta * (weights / total)[:, None]
        self.tally.merge(other.tally)
        return self

    def total(self, blocks: Iterable[int] | None = None) -> Moments:
        """Moments of the rows [x, y] of some blocks (None: of all), columns as in `columns` and the target last."""
        return self.totals([range(self.blocks) if blocks is None else blocks])[0]

    def totals(self, groups: Sequence[Iterable[int]]) -> list[Moments]:
        """Moments of the rows of several unions of blocks; a block that is named twice counts twice.

        Cost: one product of the (groups, blocks) table of counts with all blocks' cross-products. Each result holds
        (p + 1)^2 numbers: ask for as many as fit.

        Raises:
            ValueError: If all values of a column are so small that their squares are not numbers.
        """
        self._refuse_underflow()
        dimensions = len(self.columns) + 1
        shift = np.zeros(dimensions) if self._shift is None else self._shift
        members = [np.fromiter(group, np.intp) for group in groups]
        times = np.array([np.bincount(member, minlength=self.blocks) for member in members], dtype=np.float64)
        times = times.reshape(len(members), self.blocks)
        weights = times * self.tally.weights
        totals = weights.sum(1)
        means = weights @ self._relative / np.where(totals > 0, totals, 1.0)[:, None]
        crosses = (times @ self._cross.reshape(self.blocks, -1)).reshape(len(members), dimensions, dimensions)
        results = []
        for weight, total, mean, cross in zip(weights, totals, means, crosses, strict=True):
            apart = np.sqrt(weight)[:, None] * (self._relative - mean)
            cross += apart.T @ apart
            cross = (cross + cross.T) / 2  # sums were rounded in another order on the other side of the diagonal
            # What rounding has made of a constant is not variation.
            rounding = _ROUNDINGS * np.finfo(np.float64).eps * (self._reach + np.abs(mean))
            constant = np.diagonal(cross) <= total * rounding**2
            cross[constant] = 0.0
            cross[:, constant] = 0.0
            results.append(Moments.given(_count(total), shift + mean, cross))
        return results

    def _refuse_underflow(self) -> None:
        largest = np.abs(self._relative).max(0)
        squares = np.diagonal(self._cross, axis1=1, axis2=2).sum(0)
        lost = np.flatnonzero((squares < _LEAST_VALUE**2) & (largest > 0) & (largest < _LEAST_VALUE))
        if len(lost):
            names = [*map(column_name, self.columns), "the target"]
            raise ValueError(
                f"values of {', '.join(names[at] for at in lost)} are so small that their squares vanish: "
                "multiply them by a power of ten"
            )

    def _include(self, columns: Sequence[Column]) -> None:
        """Make room for columns that were not there: zeros so far."""
        wider = together(self.columns, columns)
        if wider != self.columns:
            shift, self._reach, self._relative, self._cross = self._padded(wider)
            self._shift = None if self._shift is None else shift
            self.columns = wider

    def _padded(
        self, columns: tuple[Column, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Shift, reach, means and cross-products with these columns."""
        shift = np.zeros(len(self.columns) + 1) if self._shift is None else self._shift
        if columns == self.columns:
            return shift, self._reach, self._relative, self._cross
        place = {column: at for at, column in enumerate(columns)}
        at = np.array([*(place[column] for column in self.columns), len(columns)], dtype=np.intp)
        size = len(columns) + 1
        cross = np.zeros((self.blocks, size, size))
        cross[:, at[:, None], at] = self._cross
        vectors = [np.zeros((*values.shape[:-1], size)) for values in (shift, self._reach, self._relative)]
        for wide, values in zip(vectors, (shift, self._reach, self._relative), strict=True):
            wide[..., at] = values
        return vectors[0], vectors[1], vectors[2], cross


def _squares(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of squares of every block's columns; a view."""
    return np.diagonal(products, axis1=1, axis2=2)[:, 1:]


def _centre(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn cross-products with a leading one, in place, into [weight, means] over centred cross-products."""
    weights, means = products[:, 0, :1], products[:, 0, 1:]
    means /= weights
    products[:, 1:, 1:] -= means[:, :, None] * (means * weights)[:, None, :]
    return products


def _count(weight: float) -> int | float:
    return int(weight) if float(weight).is_integer() else float(weight)
