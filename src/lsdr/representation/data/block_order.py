"""In which order rows of a file too large for memory are read: shuffled, and yet nearly one after another."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from lsdr.training.order import stream_seed

Integers = NDArray[np.int64]

_WINDOW = 2**14
_LEAST_WINDOW = 2**8
_STREAMS, _LANES = 4, 4
_MOST_MIXED = 64
_BUDGET = 256 * 2**20
_PAGE = 2**20


@dataclass(frozen=True)
class Layout:
    """How far rows are mixed, for a bounded memory.

    Attributes:
        streams: Shares of a batch that are read from places of their own.
        lanes: Steps in a row that are.
        mix: Row groups read side by side by a stream.
        chunk: Rows of each of them that are held at a time; a window of `mix * chunk` rows is shuffled as a whole.
    """

    streams: int
    lanes: int
    mix: int
    chunk: int


def lay_out(lengths: Integers, row_bytes: float, columns: int) -> Layout:
    """Windows of up to 16,384 rows, fewer where rows are large: about 256 MB in all, and as much for open pages.

    Args:
        lengths: Rows of each row group.
        row_bytes: Bytes of a row as it is held.
        columns: Columns that are read; an open row group holds a page of each, up to a megabyte.

    Example:
        >>> lay_out(np.full(160, 65536), row_bytes=80.0, columns=16)
        Layout(streams=4, lanes=4, mix=3, chunk=5461)
    """
    groups, typical = len(lengths), max(1.0, float(np.mean(lengths)))
    open_bytes = max(1.0, min(typical * row_bytes, columns * _PAGE))
    streams = min(_STREAMS, groups)
    readers = max(streams, min(groups, int(_BUDGET / open_bytes)))
    lanes = max(1, min(_LANES, readers // streams))
    window = int(np.clip(_BUDGET / (streams * lanes * max(1.0, row_bytes)), _LEAST_WINDOW, _WINDOW))
    mix = max(4, int(window // typical))
    mix = max(1, min(mix, _MOST_MIXED, readers // (streams * lanes)))
    return Layout(streams, lanes, mix, max(1, window // mix))


class BlockOrder:
    """Batches of rows of row groups, as a function of (seed, step).

    An epoch lays the row groups out in a fresh random order and cuts the rows into `streams * lanes` runs. The s-th
    share of the batch of step t (of the epoch) comes from the run of (lane, stream) = (t mod lanes, s), whose row
    groups are read `mix` at a time, a chunk of each, shuffled within these windows. So ranks, which take contiguous
    shares of a batch, and DataLoader workers, which take every n-th step, read row groups of their own wherever their
    number divides `streams` or `lanes`; the result depends on neither. Any step can be the first: nothing but row
    counts is needed to know it. An epoch has floor(rows / batch_size) steps, and shows no row twice; the rows left
    over, fewer than a batch, are others in every epoch.

    Rows are counted as if the row groups lay one behind the other.

    Args:
        lengths: Rows of each row group.
        batch_size: Rows a step.
        seed: The run's seed.
        layout: How far to mix.
        heads: Rows before these in each row group, which belong to another part; None for none.

    Raises:
        ValueError: If there are fewer rows than a batch.

    Example:
        >>> order = BlockOrder(np.array([3, 3, 2]), batch_size=4, seed=0, layout=Layout(2, 1, 1, 2))
        >>> sorted(order.batch(0) + order.batch(1))
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    def __init__(
        self, lengths: Integers, batch_size: int, seed: int, layout: Layout, heads: Integers | None = None
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.heads = np.zeros_like(self.lengths) if heads is None else heads
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        self.batch_size, self.seed, self.layout = batch_size, seed, layout
        self.epoch = int(self.starts[-1]) // max(1, batch_size)
        """Steps of an epoch."""
        if batch_size < 1 or self.epoch < 1:
            raise ValueError(
                f"a batch of {batch_size} does not fit the {self.starts[-1]} rows to train on; choose batch_size="
                f"{max(1, int(self.starts[-1]))} or less, and at least 1"
            )
        streams = min(layout.streams, batch_size)
        self._cuts = [s * (batch_size // streams) + min(s, batch_size % streams) for s in range(streams + 1)]
        self._lanes = min(layout.lanes, self.epoch)
        self._plans: dict[tuple[int, int], tuple[int, list[Integers], Integers]] = {}
        self._windows: dict[tuple[int, int], tuple[int, int, Integers]] = {}
        self._permuted: tuple[int, Integers] = (-1, self.lengths)

    def batch(self, step: int) -> list[int]:
        """Rows of the whole batch of `step`, over all ranks and micro-batches."""
        epoch, step = divmod(step, self.epoch)
        turn, lane = divmod(step, self._lanes)
        rows = list[int]()
        for stream, (first, last) in enumerate(pairwise(self._cuts)):
            width = last - first
            rows += self._rows(epoch, lane, stream, turn * width, width)
        return rows

    def _rows(self, epoch: int, lane: int, stream: int, start: int, count: int) -> list[int]:
        """Rows `start`, ..., `start + count - 1` of a run."""
        key = lane, stream
        if key not in self._plans or self._plans[key][0] != epoch:
            windows = self._plan(epoch, lane, stream)
            self._plans[key] = epoch, windows, np.cumsum([int((each[:, 1] - each[:, 0]).sum()) for each in windows])
        _, windows, ends = self._plans[key]
        found = list[int]()
        while count:
            number = int(np.searchsorted(ends, start, side="right"))
            window = self._window(epoch, lane, stream, number, windows[number])
            offset = start - (int(ends[number - 1]) if number else 0)
            taken = window[offset : offset + count].tolist()
            found += taken
            start, count = start + len(taken), count - len(taken)
        return found

    def _window(self, epoch: int, lane: int, stream: int, number: int, pieces: Integers) -> Integers:
        kept = self._windows.get((lane, stream))
        if kept is None or kept[:2] != (epoch, number):
            rows = np.concatenate([np.arange(low, high) for low, high in pieces])
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "window", epoch, lane, stream, number))
            kept = epoch, number, rows[torch.randperm(len(rows), generator=generator).numpy()]
            self._windows[lane, stream] = kept
        return kept[2]

    def _plan(self, epoch: int, lane: int, stream: int) -> list[Integers]:
        """The windows of a run: first and last row (excluded) of each piece of each."""
        low, high = self._run(lane, stream)
        permuted = self._permutation(epoch)
        ends = np.cumsum(self.lengths[permuted])
        segments = list[tuple[int, int, int]]()  # of each row group that lies in the run: where it begins, and its part
        for position in range(int(np.searchsorted(ends, low, side="right")), len(permuted)):
            group = int(permuted[position])
            begin, first = int(self.starts[group]), int(ends[position] - self.lengths[group])
            if first >= high:
                break
            part = begin + max(0, low - first), begin + min(int(self.lengths[group]), high - first)
            if part[0] < part[1]:
                segments.append((begin - int(self.heads[group]), *part))
        windows = list[Integers]()
        mix, chunk = self.layout.mix, self.layout.chunk
        for each in range(0, len(segments), mix):
            cut = [_pieces(*segment, chunk) for segment in segments[each : each + mix]]
            for number in range(max(map(len, cut))):
                windows.append(np.array([pieces[number] for pieces in cut if number < len(pieces)], dtype=np.int64))
        return windows

    def _run(self, lane: int, stream: int) -> tuple[int, int]:
        """Where the run of a lane's stream lies among the rows of an epoch."""
        steps = [-(-(self.epoch - each) // self._lanes) for each in range(lane + 1)]
        before = sum(steps[:-1]) * self.batch_size
        return before + steps[-1] * self._cuts[stream], before + steps[-1] * self._cuts[stream + 1]

    def _permutation(self, epoch: int) -> Integers:
        if self._permuted[0] != epoch:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "groups", epoch))
            self._permuted = epoch, torch.randperm(len(self.lengths), generator=generator).numpy()
        return self._permuted[1]


def _pieces(begin: int, low: int, high: int, chunk: int) -> list[tuple[int, int]]:
    """Cut rows low ... high - 1 where chunks of the row group, which begins at `begin`, end."""
    edges = [low, *range(low + chunk - (low - begin) % chunk, high, chunk), high]
    return list(pairwise(edges))
