"""Data too large for memory: parts of Parquet files that are read a chunk at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.representation.data.block_order import BlockOrder, Layout
from lsdr.representation.data.chunks import ChunkReader, Groups, gather
from lsdr.representation.data.parts import held_rows

Integers = NDArray[np.int64]

# So many places at least that examples to measure with are drawn from.
_PLACES = 16


@dataclass(frozen=True, eq=False)
class BlockRows:
    """Which rows are of a part: of each row group a stretch.

    Attributes:
        groups: All rows.
        heads: Of each row group, how many rows come before the part's.
        lengths: Of each row group, how many rows are the part's.
        layout: How far they are mixed.
    """

    groups: Groups
    heads: Integers
    lengths: Integers
    layout: Layout

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def rows(self, positions: Sequence[int]) -> Integers:
        """Positions in the part as rows of the whole.

        Raises:
            IndexError: If there is no such position.
        """
        at = np.asarray(positions, dtype=np.int64)
        ends = np.cumsum(self.lengths)
        if len(at) and (at.min() < 0 or at.max() >= ends[-1]):
            raise IndexError(f"positions {at.min()} to {at.max()} are not all in a part of {ends[-1]} rows")
        group = np.searchsorted(ends, at, side="right")
        return np.asarray(self.groups.starts[group] + self.heads[group] + at - (ends - self.lengths)[group])

    def order(self, batch_size: int, seed: int) -> BlockOrder:
        """The order in which the part is read."""
        return BlockOrder(self.lengths, batch_size, seed, self.layout, self.heads)

    def draw(self, count: int, seed: int) -> list[int]:
        """Positions of up to `count` rows from 16 row groups or more, where there are, ascending."""
        if count >= len(self):
            return list(range(len(self)))
        generator = np.random.default_rng(seed)
        starts = np.cumsum(self.lengths) - self.lengths
        filled = generator.permutation(np.flatnonzero(self.lengths))
        for share in (-(-count // min(_PLACES, len(filled))), count):
            found = list[int]()
            for group in filled:
                near = min(int(self.lengths[group]), max(share, self.layout.chunk))
                taken = min(share, near, count - len(found))
                found += (starts[group] + generator.permutation(near)[:taken]).tolist()
                if len(found) == count:
                    return sorted(found)
        return sorted(found)


def split_blocks(groups: Groups, holdout: float | int, layout: Layout) -> tuple[BlockRows, BlockRows]:
    """Training and held-out rows: of each row group the first ones are held out.

    Args:
        groups: All rows.
        holdout: As in `lsdr.representation.data.parts.held_rows`.
        layout: How far they are mixed.

    Raises:
        ValueError: If `holdout` is negative or leaves no row to train on.
    """
    total = int(groups.starts[-1])
    held = held_rows(total, holdout)
    heads = np.diff(groups.starts * held // total).astype(np.int64)
    none = np.zeros_like(heads)
    return BlockRows(groups, heads, groups.lengths - heads, layout), BlockRows(groups, none, heads, layout)


class BlockPart(Dataset[Any]):
    """A part of a table or of texts, read a chunk at a time.

    Args:
        part: Which rows.
        reader: Decodes chunks to arrays, "index" among them.
    """

    def __init__(self, part: BlockRows, reader: ChunkReader) -> None:
        self.part, self.reader = part, reader

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.part)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One example as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch of examples."""
        found = gather(self.reader, self.part.rows(positions))
        tensors = {name: torch.from_numpy(values) for name, values in found.items()}
        return {name: each.long() if each.dtype == torch.int32 else each for name, each in tensors.items()}

    def order(self, batch_size: int, seed: int) -> BlockOrder:
        """The order in which the part is read."""
        return self.part.order(batch_size, seed)

    def draw(self, count: int, seed: int) -> list[int]:
        """Positions of some examples that are cheap to read together."""
        return self.part.draw(count, seed)
