"""The rows of a batch sorted by block, shifted and weighted, in pieces that a core's cache holds."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch, Values
from lsdr.regression.columns import Column, column_name

# Below this, most of the time would go to calling BLAS; above, to fetching what it needs.
_PIECE_BYTES = 1 << 20
_LEAST_PIECE_ROWS = 512
# Sums of squares of larger numbers may overflow.
_LARGEST_SQUARED = 1e140


def aligned(batch: Batch, columns: Sequence[Column]) -> Values:
    """The batch's x with these columns: 0 where it does not have one (the dummy of a level that it does not hold).

    Returns:
        A matrix whose rows are contiguous, or the columns one by one.
    """
    values = batch.values
    if not isinstance(values, tuple) and not values.flags.c_contiguous:
        values = tuple(values.T)
    if batch.columns == tuple(columns):
        return values
    known = {column: at for at, column in enumerate(columns)}
    place = [known[column] for column in batch.columns]
    if isinstance(values, tuple):
        wide = [np.zeros(len(batch.y))] * len(columns)
        for at, own in zip(place, values, strict=True):
            wide[at] = own
        return tuple(wide)
    x = np.zeros((len(batch.y), len(columns)))
    x[:, place] = values
    return x


def together(columns: Sequence[Column], others: Sequence[Column]) -> tuple[Column, ...]:
    """The first columns, and then those of the others that are not among them."""
    known = set(columns)
    return (*columns, *(column for column in others if column not in known))


def check(batch: Batch, blocks: int, frequency: bool) -> None:
    """Refuse weights and blocks that a state cannot take.

    Raises:
        ValueError: If a block does not exist, or a weight is negative, not finite or (as a frequency) not whole.
    """
    if len(batch.blocks) and not (batch.blocks.min() >= 0 and batch.blocks.max() < blocks):
        raise ValueError(f"blocks must be numbered 0 to {blocks - 1}, got {batch.blocks.min()} to {batch.blocks.max()}")
    if batch.weights is None:
        return
    wrong = ~(np.isfinite(batch.weights) & (batch.weights >= 0))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"weights must be finite and not negative, got {batch.weights[at]} in row {batch.start + at}")
    if frequency:
        wrong = batch.weights != np.rint(batch.weights)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"frequency weights count rows and must be whole, got {batch.weights[at]} in row {batch.start + at}: "
                "use analytic weights"
            )


def rows_by_block(
    block: NDArray[np.intp], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of a weight above 0 in the order of their blocks, and where each block starts among them."""
    small = block.astype(np.uint16) if len(block) and block.max() < 1 << 16 else block  # sorted by radix
    order = np.argsort(small, kind="stable")
    if weights is not None and not weights.all():
        order = order[weights[order] > 0]
    return order, np.concatenate([[0], np.cumsum(np.bincount(block[order]))])


def shifted_rows(
    x: Values,
    y: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    block: NDArray[np.intp],
    shift: NDArray[np.float64],
    *,
    ones: bool = True,
    order: Literal["C", "F"] = "C",
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    r"""Pieces of rows of one block each: :math:`\sqrt{w}\,[1, x - c_x, y - c_y]`, blocks in ascending order.

    Args:
        x: Shape (n, p), or its columns; `order` should be F then.
        y: Shape (n,).
        weights: Shape (n,), or None; rows of weight 0 are left out.
        block: Shape (n,).
        shift: c, shape (p + 1,).
        ones: Whether the first column is there.
        order: Whether the rows or the columns of a piece are contiguous.

    Yields:
        The block and its rows, shape (m, p + 2) or (m, p + 1). The array is used again for the next piece.
    """
    sorted_rows, bounds = rows_by_block(block, weights)
    width = len(shift) + ones
    limit = max(_LEAST_PIECE_ROWS, _PIECE_BYTES // (8 * width))
    most = min(limit, len(sorted_rows))
    room = np.empty((most, width), order=order)
    fetched = np.empty((0 if isinstance(x, tuple) else most, len(shift) - 1))
    moves = shift[:-1].any()
    for number in range(len(bounds) - 1):
        for start in range(bounds[number], bounds[number + 1], limit):
            at = sorted_rows[start : min(start + limit, bounds[number + 1])]
            piece = room[: len(at)]
            inner = piece[:, ones:-1]
            # All are there; mode "raise" would go through another buffer.
            if isinstance(x, tuple):
                for own, values, move in zip(inner.T, x, shift[:-1], strict=True):
                    np.take(values, at, out=own, mode="clip")
                    if move:
                        own -= move
            else:
                taken = fetched[: len(at)]
                np.take(x, at, axis=0, out=taken, mode="clip")
                if moves and order == "C":
                    np.subtract(taken, shift[:-1], out=inner)
                else:  # turning rows into columns while subtracting would be four times as slow
                    if moves:
                        taken -= shift[:-1]
                    inner[:] = taken
            np.subtract(y.take(at), shift[-1], out=piece[:, -1])
            if ones:
                piece[:, 0] = 1.0
            if weights is not None:
                piece *= np.sqrt(weights.take(at))[:, None]
            yield number, piece


def refuse_values(batch: Batch) -> None:
    """Say which value made sums of squares that are not numbers.

    Raises:
        ValueError: Always.
    """
    named = [*zip(map(column_name, batch.columns), batch.x.T, strict=True), ("the target", batch.y)]
    for name, values in named:
        wrong = ~np.isfinite(values)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(f"values must be finite, got {values[at]} in row {batch.start + at} of {name}")
    extreme = [name for name, values in named if np.abs(values).max(initial=0.0) > _LARGEST_SQUARED]
    raise ValueError(f"squares overflow: divide {', '.join(extreme) or 'the weights'} by a power of ten")
