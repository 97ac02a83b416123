"""Centred cross-products of the design and the target by block of rows: all that least squares needs, in one pass."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from lsdr.moments import Moments
from lsdr.regression.batch import Batch
from lsdr.regression.block_state import BlockState
from lsdr.regression.columns import Column, column_name
from lsdr.regression.shifted_rows import aligned, check, refuse_values, shifted_rows, together

# How many rows of a chunk say where its mean is about.
_MEAN_ROWS = 128
# Rows are squared again, about a mean of their own, where centring left less than this of a sum of squares.
_LEAST_KEPT = 1e-6
# Numbers below this have squares that have lost digits, or vanished.
_LEAST_VALUE = 1e-140
# A standard deviation of fewer roundings of the mean than this is none.
_ROUNDINGS = 16
# Where x holds its columns together, so many numbers are turned into rows at a time: neighbours share cache lines.
_CHUNK_NUMBERS = 1 << 20
_CACHE_LINE = 8


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
        x = aligned(batch, self.columns)
        held = self.tally.weights.copy()
        start = 0
        for rows in _by_rows(x):
            chunk = slice(start, start + len(rows))
            weights = None if batch.weights is None else batch.weights[chunk]
            with np.errstate(invalid="ignore", over="ignore"):
                finite = self._add_chunk(rows, batch.y[chunk], weights, batch.blocks[chunk], held)
            if not finite:
                refuse_values(batch)
            start += len(rows)
        self.tally.add(batch)

    def _add_chunk(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        weights: NDArray[np.float64] | None,
        block: NDArray[np.intp],
        held: NDArray[np.float64],
    ) -> bool:
        """Merge the chunk's moments into the state, `held` being the weight it holds; False where it is not finite."""
        shift = _near_mean(x, y, weights)
        for number, products in _products(x, y, weights, block, shift):
            if self._shift is None:
                self._shift = shift
            self._reach = np.maximum(self._reach, np.abs(shift - self._shift))
            raw = np.diagonal(products)[1:].copy()
            if not np.isfinite(raw).all():
                return False
            if (np.diagonal(_centre(products))[1:] < _LEAST_KEPT * raw).any():
                # Seldom: some column's block is far from the chunk's mean, or constant. About its own mean, then.
                own = np.flatnonzero(block == number)
                there = None if weights is None else weights[own]
                mean = shift + products[0, 1:]
                ((_, products),) = _products(x[own], y[own], there, np.zeros(len(own), np.intp), mean)
                _centre(products)
                products[0, 1:] += mean - shift
            weight, mean = products[0, 0], products[0, 1:]
            total = held[number] + weight
            delta = (shift - self._shift) + (mean - self._relative[number])
            self._cross[number] += products[1:, 1:]
            self._cross[number] += np.multiply.outer(delta, delta * (held[number] / total * weight))
            self._relative[number] += delta * (weight / total)
            held[number] = total
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


def _near_mean(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """A vector near the mean of the rows [x, y] in standard deviations, of few digits in units of them.

    It is 0 where the mean is within a standard deviation of it, and a multiple of a power of 2 elsewhere: then the rows
    of a level that a block does not hold are all 0, or exactly alike, and their sums are exact.
    """
    used = np.arange(len(y)) if weights is None else np.flatnonzero(weights)
    used = used[:: max(1, len(used) // _MEAN_ROWS)]
    if not len(used):
        return np.zeros(x.shape[1] + 1)
    rows = np.column_stack([x[used], y[used]])
    mean, deviation = rows.mean(0), rows.std(0)
    unit = np.ldexp(1.0, np.frexp(deviation)[1] - 1)
    near = np.rint(mean / unit) * unit
    return np.where(np.ptp(rows, axis=0) == 0, rows[0], np.where(np.abs(mean) <= deviation, 0.0, near))


def _products(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    block: NDArray[np.intp],
    shift: NDArray[np.float64],
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Cross-products of the weighted rows [1, x - shift, y - shift] of each block that has any; one array for all."""
    products = np.empty((len(shift) + 1, len(shift) + 1))
    if weights is None and not shift[:-1].any() and len(block) and block[0] == block[-1] and (block == block[0]).all():
        # Nothing to sort, to move or to weigh: the rows need no copy.
        pair = np.stack([np.ones_like(y), y - shift[-1]])
        products[1:-1, 1:-1] = x.T @ x
        products[[0, -1], 1:-1] = pair @ x
        products[1:-1, [0, -1]] = products[[0, -1], 1:-1].T
        products[np.ix_([0, -1], [0, -1])] = pair @ pair.T
        yield int(block[0]), products
        return
    for number, pieces in groupby(shifted_rows(x, y, weights, block, shift), key=itemgetter(0)):
        for index, (_, rows) in enumerate(pieces):
            if index:
                products += rows.T @ rows
            else:
                np.matmul(rows.T, rows, out=products)
        yield number, products


def _centre(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn cross-products with a leading one, in place, into [weight, means] over centred cross-products."""
    products[0, 1:] /= products[0, 0]
    mean = products[0, 1:]
    products[1:, 1:] -= np.multiply.outer(mean, mean * products[0, 0])
    return products


def _by_rows(x: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The rows, in chunks whose rows are contiguous: as they are, or copied into room used again for the next chunk."""
    n, p = x.shape
    if x.flags.c_contiguous or not p:
        yield x
        return
    room = np.empty((min(n, max(_CHUNK_NUMBERS // p, 1)), p))
    for start in range(0, n, len(room)):
        rows = room[: n - start]
        for column in range(0, p, _CACHE_LINE):
            some = slice(column, column + _CACHE_LINE)
            rows[:, some] = x[start : start + len(rows), some]
        yield rows


def _count(weight: float) -> int | float:
    return int(weight) if float(weight).is_integer() else float(weight)
