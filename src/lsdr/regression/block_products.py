"""Cross-products of the rows of each block, at little more than the cost of the products themselves."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Values, rows_of
from lsdr.regression.shifted_rows import rows_by_block, shifted_rows

# How many rows say where the mean is about.
_MEAN_ROWS = 128
# Columns are sorted by block so many numbers, and at least so many rows, at a time: what caches hold, and enough rows
# of every block to square at once.
_CHUNK_NUMBERS = 1 << 19
_LEAST_CHUNK_ROWS = 1 << 13
# Blocks whose products are this many numbers at most are handed on together.
_HANDED_NUMBERS = 1 << 17


def near_mean(x: Values, y: NDArray[np.float64], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """A vector near the mean of the rows [x, y] in standard deviations, of few digits in units of them.

    It is 0 where the mean is within a standard deviation of it, and a multiple of a power of 2 elsewhere: then the rows
    of a level that a block does not hold are all 0, or exactly alike, and their sums are exact.
    """
    used = np.arange(len(y)) if weights is None else np.flatnonzero(weights)
    used = used[:: max(1, len(used) // _MEAN_ROWS)]
    rows = np.column_stack([rows_of(x, used), y[used]])
    mean, deviation = rows.mean(0), rows.std(0)
    unit = np.ldexp(1.0, np.frexp(deviation)[1] - 1)
    near = np.rint(mean / unit) * unit
    return np.where(np.ptp(rows, axis=0) == 0, rows[0], np.where(np.abs(mean) <= deviation, 0.0, near))


def block_products(
    x: Values,
    y: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    block: NDArray[np.intp],
    shift: NDArray[np.float64],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64], slice]]:
    r"""Cross-products of the weighted rows :math:`\sqrt{w}\,[1, x - c_x, y - c_y]` of each block that has any.

    Args:
        x: Shape (n, p), rows contiguous, or its columns.
        y: Shape (n,).
        weights: Shape (n,), or None; rows of weight 0 are left out.
        block: Shape (n,).
        shift: c, shape (p + 1,).

    Yields:
        Numbers of blocks, each once; their products, shape (blocks, p + 2, p + 2), an array that is used again; the
        rows that these are of: columns are worked on in chunks of rows.
    """
    size = len(shift) + 1
    room = np.empty((max(1, _HANDED_NUMBERS // size**2), size, size))
    unsorted = weights is None and bool((block == block[:1]).all())
    if isinstance(x, tuple):
        chunks = _chunks(x, y, weights, block, shift, unsorted)
    elif unsorted and not shift[:-1].any():
        _of_all(x, y - shift[-1], room[0])
        yield block[:1], room[:1], slice(None)
        return
    else:
        chunks = iter([(slice(None), shifted_rows(x, y, weights, block, shift))])
    for rows, pieces in chunks:
        numbers: list[int] = []
        for number, of_block in groupby(pieces, key=itemgetter(0)):
            products = room[len(numbers)]
            for index, (_, piece) in enumerate(of_block):
                if index:
                    products += piece.T @ piece
                else:
                    np.matmul(piece.T, piece, out=products)
            numbers.append(number)
            if len(numbers) == len(room):
                yield np.array(numbers), room, rows
                numbers = []
        if numbers:
            yield np.array(numbers), room[: len(numbers)], rows


def _of_all(x: NDArray[np.float64], y: NDArray[np.float64], products: NDArray[np.float64]) -> None:
    """Fill in the products of all rows; nothing to sort, to move or to weigh: the rows need no copy."""
    pair = np.stack([np.ones_like(y), y])
    products[1:-1, 1:-1] = x.T @ x
    products[[0, -1], 1:-1] = pair @ x
    products[1:-1, [0, -1]] = products[[0, -1], 1:-1].T
    products[np.ix_([0, -1], [0, -1])] = pair @ pair.T


def _chunks(
    x: tuple[NDArray[np.float64], ...],
    y: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    block: NDArray[np.intp],
    shift: NDArray[np.float64],
    unsorted: bool,
) -> Iterator[tuple[slice, Iterator[tuple[int, NDArray[np.float64]]]]]:
    """Chunks of rows and their pieces as of `shifted_rows`: columns that are sorted in a cache, in room used again."""
    width = len(shift) + 1
    step = max(_LEAST_CHUNK_ROWS, _CHUNK_NUMBERS // width)
    room = np.empty((width, min(step, len(y))))
    for start in range(0, len(y), step):
        chunk = slice(start, start + step)
        there = None if weights is None else weights[chunk]
        at, bounds = rows_by_block(block[chunk], there)
        columns = room[:, : len(at)]
        columns[0] = 1.0
        for column, values, move in zip(columns[1:], (*x, y), shift, strict=True):
            if unsorted:
                column[:] = values[chunk]
            else:
                np.take(values[chunk], at, out=column, mode="clip")  # "raise" would go through another buffer
            if move:
                column -= move
        if there is not None:
            columns *= np.sqrt(there.take(at))
        yield chunk, ((int(b), columns[:, bounds[b] : bounds[b + 1]].T) for b in np.flatnonzero(np.diff(bounds)))
