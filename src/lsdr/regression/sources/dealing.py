"""Which block a row goes to: by its number, by its cluster, or within the fold that a column gives."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.blocks import block_of, fold_of_block
from lsdr.regression.plan import Plan


def blocks_of(
    plan: Plan,
    part: int,
    start: int,
    rows: int,
    used: NDArray[np.intp] | None,
    clusters: NDArray[Any] | None,
    folds: NDArray[Any] | None,
    row: Callable[[int], str],
) -> NDArray[np.intp]:
    """The blocks of the used ones of rows start, ..., start + rows - 1 of a part.

    Rows of a cluster share a block, wherever they lie: else folds and halves would share clusters, and errors
    between them would not be independent. With a column of folds a row goes to one of the blocks of its fold.

    Args:
        plan: Folds, blocks, seed.
        part: Number of the part.
        start: Row in the part.
        rows: How many rows, the unused ones counted.
        used: Which of them are used, None for all.
        clusters: Labels of the used rows, or None.
        folds: Folds of the used rows, or None.
        row: Names the i-th of the rows, for messages.

    Raises:
        ValueError: If a fold is not one of the plan's.
    """
    if clusters is None:
        # Strata of the row numbers follow the plan's folds only where the rows' numbers decide the fold.
        found = block_of(part, start, rows, plan.blocks, plan.seed, folds=plan.folds)
        found = found if used is None else found[used]
    else:
        labels, inverse = np.unique(clusters, return_inverse=True)
        hashes = np.array([_hash(plan.seed, label) for label in labels.tolist()], np.uint64)
        found = (hashes % np.uint64(plan.blocks)).astype(np.intp)[inverse]
    if folds is None:
        return found
    numbers = _fold_numbers(plan, folds, used, row)
    members = _members(plan.blocks, plan.folds)
    # The bits of `found` that do not say the fold choose among the blocks of the fold asked for.
    inside = found // plan.folds % members.shape[1]
    chosen: NDArray[np.intp] = members[numbers, inside]
    return chosen


@lru_cache(maxsize=8)
def _members(blocks: int, folds: int) -> NDArray[np.intp]:
    numbers = np.arange(blocks)
    fold = fold_of_block(numbers, folds)
    return np.stack([numbers[fold == k] for k in range(folds)]).astype(np.intp)


def _fold_numbers(
    plan: Plan, folds: NDArray[Any], used: NDArray[np.intp] | None, row: Callable[[int], str]
) -> NDArray[np.intp]:
    labels, inverse = np.unique(folds, return_inverse=True)
    known = {label: k for k, label in enumerate(plan.fold_labels or range(plan.folds))}
    for position, label in enumerate(labels.tolist()):
        if label not in known:
            at = int(np.flatnonzero(inverse == position)[0])
            at = at if used is None else int(used[at])
            raise ValueError(
                f"{plan.fold_column!r} is {label!r} in {row(at)}, but folds are "
                f"{', '.join(map(repr, list(known)[:10]))}{', ...' if len(known) > 10 else ''}"
                + ("" if plan.fold_labels else ": number them so, or give a source that can be read twice")
            )
    return np.array([known[label] for label in labels.tolist()], np.intp)[inverse]


def _hash(seed: int, label: Any) -> int:
    # 3 and 3.0 are one label: whether a file's column of whole numbers has gaps decides which of them comes.
    text = repr(int(label)) if isinstance(label, float) and label.is_integer() else repr(label)
    digest = hashlib.blake2b(f"{seed}|{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
