"""Parts of data that fits into memory, and which examples belong to which part."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

Integers = NDArray[np.int64]


class Part(Dataset[Any]):
    """Some rows of tensors in memory.

    Args:
        tensors: Named tensors of all rows; 32-bit integers are given out as 64-bit ones.
        index: Which rows are of this part, int64 (n,).
    """

    def __init__(self, tensors: Mapping[str, Tensor], index: Tensor) -> None:
        self.tensors, self.index = dict(tensors), index

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.index)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One example as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch of examples."""
        index = self.index[torch.as_tensor(positions, dtype=torch.int64)]
        batch = {name: value[index] for name, value in self.tensors.items()}
        wide = {name: value.long() if value.dtype == torch.int32 else value for name, value in batch.items()}
        return {**wide, "index": index}


def held_rows(count: int, holdout: float | int) -> int:
    """How many of `count` examples a `holdout` holds out; a positive fraction holds out at least one.

    Args:
        count: How many there are.
        holdout: A fraction in [0, 1), or how many.

    Raises:
        ValueError: If `holdout` is negative or leaves no example to train on.

    Example:
        >>> held_rows(50, 0.1), held_rows(50, 7), held_rows(50, 0)
        (5, 7, 0)
    """
    if holdout < 0 or (isinstance(holdout, float) and not holdout < 1):
        raise ValueError(f"holdout={holdout} must be a fraction in [0, 1), or a whole number of examples")
    held = max(int(holdout > 0), round(holdout * count)) if isinstance(holdout, float) else holdout
    if held >= count:
        raise ValueError(
            f"holding out {held} of {count} example(s) leaves none to train on; choose a smaller holdout, or give more"
        )
    return held


def split_rows(
    count: int, holdout: float | int, seed: int, groups: Integers | None = None
) -> tuple[Integers, Integers]:
    """Training and held-out rows, by the seed alone.

    Args:
        count: How many rows there are.
        holdout: As in `held_rows`.
        seed: What decides which.
        groups: Rows with equal numbers stay together, in training or out of it; whole groups are held out until there
            are enough rows.

    Returns:
        Both, ascending.

    Raises:
        ValueError: If `holdout` is negative or leaves no row to train on.

    Example:
        >>> train, heldout = split_rows(10, 0.2, seed=0)
        >>> len(train), len(heldout)
        (8, 2)
    """
    held = held_rows(count, holdout)
    generator = torch.Generator().manual_seed(seed)
    if groups is None:
        order = torch.randperm(count, generator=generator).numpy()
        return np.sort(order[held:]), np.sort(order[:held])
    names, sizes = np.unique(groups, return_counts=True)
    order = torch.randperm(len(names), generator=generator).numpy()
    chosen = names[order[: int(np.searchsorted(np.cumsum(sizes[order]), held)) + 1]] if held else names[:0]
    aside = np.isin(groups, chosen)
    if aside.all():
        raise ValueError(
            f"holding out {held} of {count} rows in {len(names)} groups leaves none to train on; choose a smaller "
            "holdout"
        )
    return np.flatnonzero(~aside), np.flatnonzero(aside)
