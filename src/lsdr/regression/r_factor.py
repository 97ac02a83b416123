"""The triangular factor of the design and the target by block of rows: half the condition of cross-products."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch
from lsdr.regression.block_state import BlockState
from lsdr.regression.columns import Column
from lsdr.regression.shifted_rows import aligned, check, refuse_values, shifted_rows, together
from lsdr.regression.triangular_qr import triangular_qr

# A column that varies by fewer roundings of its distance from the shift than this is constant.
_ROUNDINGS = 64


class RFactor(BlockState):
    r"""Triangular factor R of the rows of every block: each chunk is rotated into the factor of those before (TSQR).

    .. math:: R_b^\top R_b = Z_b^\top Z_b, \qquad Z_b = \sqrt{w}\,[1, x - c_x, y - c_y]

    (Demmel, Grigori, Hoemmen & Langou, "Communication-optimal parallel and sequential QR and LU factorizations",
    SIAM J. Sci. Comput. 2012.) The shift c is the same for all states that are to be merged: the means of a first
    batch, so that a mean far from zero costs no digits. Without an intercept there is neither a column of ones nor a
    shift: both would change the model.

    Columns are matched by name, as in `lsdr.regression.gram.Gram`. State: blocks (p + 2)^2 numbers.
    Cost: 2 n (p + 2)^2 flops, three to four times as long as cross-products take.

    Example:
        >>> factor = RFactor(2, True, False, shift=np.array([2.0, 3.0]), columns=(("area", ""),))
        >>> x, y = np.array([[1.0], [2.0], [3.0], [6.0]]), np.array([1.0, 3.0, 5.0, 7.0])
        >>> factor.add(Batch((("area", ""),), x, y, weights=None, clusters=None, blocks=np.array([0, 0, 1, 1])))
        >>> r = factor.factor()
        >>> (r.T @ r).round(9) + 0.0
        array([[ 4.,  4.,  4.],
               [ 4., 18., 20.],
               [ 4., 20., 24.]])
    """

    def __init__(
        self,
        blocks: int,
        intercept: bool,
        frequency: bool,
        shift: NDArray[np.float64],
        columns: Sequence[Column],
    ) -> None:
        """Start empty.

        Args:
            blocks: Number of blocks.
            intercept: Whether the rows start with a one.
            frequency: Whether weights count rows; they must be whole numbers then.
            shift: What is taken off the columns, and last off the target, shape (p + 1,); unused without intercept.
            columns: The p columns that the shift is of. Others that turn up later have the shift 0.
        """
        super().__init__(blocks, intercept, frequency, tuple(columns))
        if shift.shape != (len(columns) + 1,):
            raise ValueError(f"shift must hold {len(columns)} columns and the target, got shape {shift.shape}")
        self.shift: NDArray[np.float64] = shift.copy() if intercept else np.zeros(len(shift))
        width = len(shift) + intercept
        # Each block's factor is kept transposed, so that LAPACK, which counts in Fortran's order, works in place.
        self._lower: NDArray[np.float64] = np.zeros((blocks, width, width))

    def add(self, batch: Batch) -> None:
        """Add the rows of a batch.

        Raises:
            ValueError: If weights are negative or (as frequencies) not whole, or values are not finite.
        """
        check(batch, self.blocks, self.frequency)
        self._include(batch.columns)
        x = aligned(batch, self.columns)
        pieces = shifted_rows(x, batch.y, batch.weights, batch.blocks, self.shift, ones=self.intercept, order="F")
        for number, rows in pieces:
            triangular_qr(self._lower[number].T, rows)
            if not np.isfinite(np.diagonal(self._lower[number])).all():
                refuse_values(batch)
        self.tally.add(batch)

    def merge(self, other: "RFactor") -> "RFactor":
        """Add the rows of another state in place and return self; `other` stays as it is.

        Raises:
            ValueError: If the states differ in blocks, intercept, the meaning of weights, or a shift.
        """
        self._refuse_unlike(other)
        self._include(other.columns)
        shift, lower = other._padded(self.columns)
        if not np.array_equal(shift, self.shift):
            raise ValueError("cannot merge factors about different shifts: give all the same one")
        for number in np.flatnonzero(other.rows):
            triangular_qr(
                self._lower[number].T, lower[number].T.copy(order="F"), triangular=other.columns == self.columns
            )
        self.tally.merge(other.tally)
        return self

    def factor(self, blocks: Iterable[int] | None = None) -> NDArray[np.float64]:
        """R of the rows [1, x - shift, y - shift] of some blocks (None: of all), upper triangular, diagonal >= 0.

        Returns:
            Shape (p + 2, p + 2), or (p + 1, p + 1) of [x, y] without an intercept.
        """
        return self.factors([range(self.blocks) if blocks is None else blocks])[0]

    def factors(self, groups: Sequence[Iterable[int]]) -> list[NDArray[np.float64]]:
        """R of several unions of blocks; blocks that are in the same groups are brought together once.

        A block that is named twice counts twice.
        """
        members = [np.fromiter(group, np.intp) for group in groups]
        times = np.array([np.bincount(member, minlength=self.blocks) for member in members], dtype=np.float64)
        times = times.reshape(len(members), self.blocks)
        patterns, which = np.unique(times, axis=1, return_inverse=True)
        which = which.reshape(-1)
        pooled = [self._stacked(self._lower[which == pattern]) for pattern in range(patterns.shape[1])]
        results: list[NDArray[np.float64]] = []
        for counts in patterns:
            upper = self._stacked([np.sqrt(counts[at]) * pooled[at] for at in np.flatnonzero(counts)]).T
            signs = np.where(np.diagonal(upper) < 0, -1.0, 1.0)
            upper = signs[:, None] * upper
            if self.intercept:
                # What rounding has made of a column that is constant, but not at its shift, is not variation.
                rest = np.abs(upper[1:]).max(0)
                upper[1:, rest <= _ROUNDINGS * np.finfo(np.float64).eps * np.abs(upper[0])] = 0.0
            results.append(upper)
        return results

    def _stacked(self, lower: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
        """The transposed factor of several under each other, which are overwritten."""
        result: NDArray[np.float64] = np.zeros_like(self._lower[0])
        for factor in lower:
            triangular_qr(result.T, factor.T, triangular=True)
        return result

    def _include(self, columns: Sequence[Column]) -> None:
        """Make room for columns that were not there: zeros so far."""
        wider = together(self.columns, columns)
        if wider == self.columns:
            return
        self.shift, lower = self._padded(wider)
        self.columns = wider
        self._lower = np.zeros_like(lower)
        for number, factor in enumerate(lower):
            triangular_qr(self._lower[number].T, factor.T)

    def _padded(self, columns: tuple[Column, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shift and transposed factors with these columns: their rows are right, but no longer triangular."""
        if columns == self.columns:
            return self.shift, self._lower
        place = {column: at for at, column in enumerate(columns)}
        at = np.array([*(place[column] for column in self.columns), len(columns)], dtype=np.intp)
        ones = int(self.intercept)
        width = len(columns) + 1 + ones
        shift, lower = np.zeros(len(columns) + 1), np.zeros((self.blocks, width, width))
        shift[at] = self.shift
        wide = np.concatenate([np.arange(ones), at + ones])
        lower[:, wide, : len(wide)] = self._lower
        return shift, lower
