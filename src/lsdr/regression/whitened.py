"""A fitted model in coordinates in which its columns are orthonormal: where residuals and leverages lose no digits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch
from lsdr.regression.columns import Column

_ROWS = 8192  # A chunk: its copies stay in the cache.


@dataclass(frozen=True, eq=False)
class Whitened:
    r"""One model's coefficients b and a root T of the inverse of its (weighted, centred) cross-products.

    .. math:: T T^\top = (X_c^\top W X_c)^{-1}, \quad u_i = \sqrt{w_i}\,[1/\sqrt{\textstyle\sum w},\ (x_i - \bar x) T]

    The rows u make an orthonormal system, so that their squared length is the leverage, and a sandwich of the model is
    L (sum of omega u u') L' with L = [[1/sqrt(sum w), -mean T], [0, T]], however collinear the columns are.
    """

    columns: tuple[Column, ...]
    coefficients: NDArray[np.float64]
    mean: NDArray[np.float64]
    mean_y: float
    root: NDArray[np.float64]
    weight: float
    rows: float
    df_resid: float
    intercept: bool = True
    blocks: tuple[int, ...] | None = None  # Rows of these blocks alone are looked at; None: all.

    @property
    def back(self) -> NDArray[np.float64]:
        """L, from whitened coordinates to (intercept, coefficients); without an intercept it is T."""
        if not self.intercept:
            return self.root
        top = np.concatenate([[1 / np.sqrt(self.weight)], -self.mean @ self.root])
        return np.block([[top], [np.zeros((len(self.columns), 1)), self.root]])

    def without(self, keep: Sequence[int], root: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Root of the same kind, shape (kept, p), of the model of the columns `keep`: the other rows projected out.

        With R = T^-1 the kept columns of R span what is orthogonal to the dropped rows of T, so that the projected rows
        are the pseudo-inverse of those columns: T_S M T_S' = C_S (X'WX-coordinates of M)_SS C_S.
        """
        rows = self.root if root is None else root
        drop = np.setdiff1d(np.arange(len(rows)), keep)
        if not drop.size:
            return rows
        q = np.linalg.qr(rows[drop].T)[0]
        kept = rows[np.asarray(keep, dtype=np.intp)]
        return np.asarray(kept - (kept @ q) @ q.T)

    def used(self, batch: Batch) -> NDArray[np.intp]:
        """Positions of the rows of positive weight in the model's blocks."""
        mask = np.ones(len(batch.y), dtype=bool) if batch.weights is None else batch.weights > 0
        if self.blocks is not None:
            mask = mask & np.isin(batch.blocks, self.blocks)
        return np.flatnonzero(mask)

    def rows_of(self, batch: Batch) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
        """Chunks of (rows u, residuals e, weights w) of a batch; columns that it has not seen are zeros there."""
        places = {column: place for place, column in enumerate(batch.columns)}
        taken = [places.get(column, -1) for column in self.columns]
        used = self.used(batch)
        unseen = np.array([place < 0 for place in taken], dtype=bool)
        if not batch.columns:
            taken = []
        for start in range(0, len(used), _ROWS):
            here = used[start : start + _ROWS]
            w = np.ones(len(here)) if batch.weights is None else batch.weights[here]
            chunk = batch.x[here][:, taken] if taken else np.zeros((len(here), len(self.columns)))
            chunk[:, unseen] = 0
            centred = chunk - self.mean
            residuals = (batch.y[here] - self.mean_y) - centred @ self.coefficients
            u = centred @ self.root
            if self.intercept:
                u = np.column_stack([np.full(len(u), 1 / np.sqrt(self.weight)), u])
            yield u * np.sqrt(w)[:, None], residuals, w
