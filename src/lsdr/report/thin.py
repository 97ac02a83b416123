"""Curves short enough for a page: thinned without losing a spike, and one median over seeds."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def thin(x: Array, y: Array, buckets: int = 300) -> tuple[Array, Array]:
    """Shorten a curve to at most `4 * buckets` points, keeping the least and the greatest value of every bucket.

    The first and last point of a bucket stay too, so that a line never seems to end early. Buckets hold equally many
    points; values that are not finite count as gaps and are kept only where a whole bucket has nothing else.

    Args:
        x: Positions, shape (n,).
        y: Values, shape (n,).
        buckets: Into how many stretches the curve is cut.

    Returns:
        The points kept, in order.

    Example:
        >>> y = np.zeros(100_000)
        >>> y[77_777] = 9.0
        >>> short = thin(np.arange(100_000.0), y)[1]
        >>> len(short) <= 1200, float(short.max())
        (True, 9.0)
    """
    if len(x) <= 4 * buckets:
        return x, y
    kept: list[int] = []
    edges = np.linspace(0, len(x), buckets + 1).astype(int)
    for start, stop in pairwise(edges):
        part = y[start:stop]
        finite = np.flatnonzero(np.isfinite(part))
        if len(finite) == 0:
            kept.append(int(start))
            continue
        extremes = {finite[0], finite[-1], finite[np.argmin(part[finite])], finite[np.argmax(part[finite])]}
        kept.extend(int(start + index) for index in sorted(extremes))
    return x[kept], y[kept]


def middle(curves: list[tuple[Array, Array]], points: int = 120) -> tuple[Array, Array]:
    """Median over seeds of curves that need not share their positions.

    A curve with more than `points` values is first reduced to medians of equal stretches; between positions it is
    interpolated, and beyond its end it is left out. Positions that half of the seeds or fewer reach are dropped: a
    median over the survivors alone would flatter a method whose runs diverge.

    Args:
        curves: One (x, y) per seed, x ascending.
        points: The most points returned.

    Returns:
        Positions and medians.

    Example:
        >>> x = np.arange(3.0)
        >>> middle([(x, x), (x, x + 1), (x, x + 5)])[1]
        array([1., 2., 3.])
    """
    reduced = [_reduce(x[np.isfinite(y)], y[np.isfinite(y)], points) for x, y in curves if np.isfinite(y).any()]
    if not reduced:
        return np.empty(0), np.empty(0)
    grid = np.unique(np.concatenate([x for x, _ in reduced]))
    if len(grid) > points:
        grid = np.linspace(grid[0], grid[-1], points)
    values = np.stack([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in reduced])
    enough = 2 * np.isfinite(values).sum(axis=0) > len(curves)
    return grid[enough], np.nanmedian(values[:, enough], axis=0)


def _reduce(x: Array, y: Array, points: int) -> tuple[Array, Array]:
    if len(x) <= points:
        return x, y
    xs, ys = np.array_split(x, points), np.array_split(y, points)
    return np.array([part.mean() for part in xs]), np.array([np.median(part) for part in ys])
