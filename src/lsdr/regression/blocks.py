"""Rows hashed into blocks: folds, half-samples and splits are unions of blocks, so one pass serves them all."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_LEAST_BLOCKS = 20
_LEAST_ORDERS = 4096
_GOLDEN = 0x9E3779B97F4A7C15


def block_count(folds: int) -> int:
    """How many blocks serve so many folds: at least 20, and an even number in every fold (halves split the folds).

    Example:
        >>> [block_count(folds) for folds in (2, 3, 5, 10, 30)]
        [20, 24, 20, 20, 60]
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    return 2 * folds * -(-_LEAST_BLOCKS // (2 * folds))


def fold_of_block(block: NDArray[np.intp], folds: int) -> NDArray[np.intp]:
    """The fold that a block belongs to: its number modulo the number of folds."""
    return block % folds


def block_of(part: int, start: int, rows: int, blocks: int, seed: int, *, folds: int = 1) -> NDArray[np.intp]:
    """The blocks of rows start, ..., start + rows - 1 of a part: a function of (seed, part, row) and nothing else.

    Every run of `blocks` rows of a part (from a multiple of `blocks`) holds each block once, in one of thousands of
    random orders, picked by a hash, and every run of `folds` rows (from a multiple of `folds`) each fold once: blocks
    and folds are as even as can be, for 13 rows as for a billion, and no order or period of the rows favours one.

    Args:
        part: Number of the part of the source.
        start: Row within the part at which the rows start.
        rows: How many rows.
        blocks: Number of blocks, a multiple of `folds`.
        seed: Another seed, another division.
        folds: Number of folds, see `fold_of_block`.

    Returns:
        Block numbers, shape (rows,), from 0 to blocks - 1.

    Example:
        >>> blocks = block_of(part=0, start=0, rows=6, blocks=6, seed=0, folds=3)
        >>> sorted(blocks.tolist()), sorted((blocks[:3] % 3).tolist())
        ([0, 1, 2, 3, 4, 5], [0, 1, 2])
    """
    if blocks < 1 or folds < 1 or blocks % folds:
        raise ValueError(f"blocks must be a positive multiple of folds, got {blocks} blocks and {folds} folds")
    if blocks == 1:
        return np.zeros(rows, np.intp)
    first, last = start // blocks, -(-(start + rows) // blocks)
    key = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64) ^ _mix(np.array([part + 1], np.uint64)))
    orders = _orders(blocks, folds)
    picked = _mix(np.arange(first, last, dtype=np.uint64) * np.uint64(_GOLDEN) + key) % np.uint64(len(orders))
    return orders[picked.astype(np.intp)].reshape(-1)[start - first * blocks :][:rows]


@lru_cache(maxsize=8)
def _orders(blocks: int, folds: int) -> NDArray[np.intp]:
    """Orders of all blocks, each run of `folds` of which holds each fold once, shape (some thousand, blocks).

    Every order is there with all blocks renumbered cyclically: each block comes as often as any other in every place.
    """
    count = -(-_LEAST_ORDERS // blocks)
    hashes = _mix(np.arange(count * blocks, dtype=np.uint64) * np.uint64(_GOLDEN)).reshape(
        count, blocks // folds, folds
    )
    # Which fold: an order of the folds drawn for each run of `folds` rows. Which block of that fold: an order of the
    # fold's blocks drawn for each order, from other bits of the same hashes.
    fold = hashes.argsort(axis=2)
    within = np.take_along_axis((hashes << np.uint64(32)).argsort(axis=1), fold, axis=2)
    drawn = (within * folds + fold).reshape(count, 1, blocks)
    return ((drawn + np.arange(blocks)[:, None]) % blocks).reshape(count * blocks, blocks).astype(np.intp, copy=False)


def halves(blocks: int, generator: np.random.Generator, folds: int = 1) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A complementary pair of half-samples: half of the blocks of every fold, drawn at random, and the others.

    Args:
        blocks: Number of blocks.
        generator: Source of the draw.
        folds: Number of folds; `blocks` must be an even multiple of it.

    Returns:
        The blocks of the first and of the second half, each sorted.

    Example:
        >>> first, second = halves(20, np.random.default_rng(0), folds=5)
        >>> len(first), sorted([*first, *second]) == list(range(20)), np.bincount(first % 5).tolist()
        (10, True, [2, 2, 2, 2, 2])
    """
    if blocks % (2 * folds):
        raise ValueError(f"blocks must be an even multiple of folds, got {blocks} blocks and {folds} folds")
    drawn = generator.permuted(np.arange(blocks).reshape(-1, folds), axis=0)
    middle = len(drawn) // 2
    return np.sort(drawn[:middle], axis=None), np.sort(drawn[middle:], axis=None)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014): every input bit moves every output bit."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
