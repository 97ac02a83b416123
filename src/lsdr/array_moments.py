"""Moments of one chunk of NumPy rows, at little more than the cost of their product and without a copy of them."""

import math

import numpy as np
from numpy.typing import NDArray

# How many rows lend the chunk its shift, and how many numbers are multiplied at a time: what a core's cache holds.
_MEAN_ROWS = 512
_PIECE_NUMBERS = 1 << 17


def array_moments(
    x: NDArray[np.float64], y: NDArray[np.float64] | None, weights: NDArray[np.float64] | None
) -> tuple[int | float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What `lsdr.moments.Moments` keeps of a chunk.

    Args:
        x: Shape (N, D) or (N, P, D).
        y: A second view, shape (N, Dy) or (N, P, Dy), or None.
        weights: Shape (N,), none below 0, or None.

    Returns:
        Count (the sum of weights, where there are any), shift, mean relative to the shift, centred cross-products.
    """
    split = x.shape[-1]
    shape = (*x.shape[1:-1], split + (0 if y is None else y.shape[-1]))
    # Any shift near the mean will do, and the mean of m rows out of n is within sqrt(n/m) standard deviations of it.
    some = np.arange(len(x)) if weights is None else np.flatnonzero(weights)
    some = some[:: max(1, len(some) // _MEAN_ROWS)]
    sample = x[some] if y is None else np.concatenate([x[some], y[some]], axis=-1)
    shift = sample.sum(0) / max(len(sample), 1)
    step = max(1, _PIECE_NUMBERS // max(1, math.prod(shape)))
    room = np.empty((min(step, len(x)), *shape))
    sums, cross = np.zeros(shape), np.zeros((shape[-1], shape[-1]))
    for start in range(0, len(x), step):
        rows = room[: len(x) - start]
        chunk = slice(start, start + step)
        np.subtract(x[chunk], shift[..., :split], out=rows[..., :split])
        if y is not None:
            np.subtract(y[chunk], shift[..., split:], out=rows[..., split:])
        if weights is None:
            sums += rows.sum(0)
        else:
            roots = np.sqrt(weights[chunk])
            rows *= roots.reshape(-1, *[1] * len(shape))
            sums += np.tensordot(roots, rows, 1)
        flat = rows.reshape(-1, shape[-1])
        cross += flat.T @ flat
    count = len(x) if weights is None else float(weights.sum())
    relative = sums / (count or 1)
    centres = relative.reshape(-1, shape[-1])
    cross -= (centres.T @ centres) * count
    return count, shift, relative, cross
