"""Rows that can only be read one after another: streams, shuffled within windows, resumable at the row."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.training.order import stream_seed

Row = Mapping[str, Any]
_STREAMS, _LANES = 4, 4


@runtime_checkable
class RowSource(Protocol):
    """Rows in one or more parts that are read independently; safe to pickle."""

    parts: int

    def rows(self, part: int, skip: int) -> Iterator[Row]:
        """The rows of a part, the first `skip` left out."""
        ...

    def name(self, part: int, row: int) -> str:
        """What to call a row of a part."""
        ...


@dataclass(frozen=True)
class Keys:
    """Which entry of a row holds what."""

    value: str | None
    label: str | None
    names: tuple[str, ...] | None = None


def stream_shape(shards: int) -> tuple[int, int]:
    """Streams and lanes (see `StreamOrder`) that so many shards allow.

    Example:
        >>> stream_shape(100), stream_shape(6), stream_shape(1)
        ((4, 4), (4, 1), (1, 1))
    """
    streams = min(_STREAMS, shards)
    return streams, min(_LANES, shards // streams)


class StreamOrder:
    """Batches of rows of endless streams, as a function of (seed, step).

    The s-th share of the batch of step t continues stream s of lane t mod lanes; within a window of rows the order is
    random. As with `lsdr.representation.data.block_order.BlockOrder`, ranks and workers read streams of their own where
    their number divides `streams` or `lanes`, and the result depends on neither. Row r of stream k has the number
    r * streams * lanes + k; a stream that ends begins again.

    Args:
        streams: Shares of a batch that come from streams of their own.
        lanes: Steps in a row that do.
        window: Rows of a stream that are shuffled among themselves.
        batch_size: Rows a step.
        seed: The run's seed.

    Example:
        >>> order = StreamOrder(streams=2, lanes=1, window=2, batch_size=4, seed=0)
        >>> sorted(order.batch(0)), sorted(order.batch(1))
        ([0, 1, 2, 3], [4, 5, 6, 7])
    """

    def __init__(self, streams: int, lanes: int, window: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.streams, self.lanes, self.window, self.batch_size, self.seed = streams, lanes, window, batch_size, seed
        used = min(streams, batch_size)
        self._cuts = [s * (batch_size // used) + min(s, batch_size % used) for s in range(used + 1)]
        self._kept: dict[int, tuple[int, list[int]]] = {}

    def batch(self, step: int) -> list[int]:
        """Rows of the whole batch of `step`, over all ranks and micro-batches."""
        turn, lane = divmod(step, self.lanes)
        rows = list[int]()
        for share, (first, last) in enumerate(pairwise(self._cuts)):
            stream, width = lane * self.streams + share, last - first
            rows += [self._row(stream, turn * width + each) for each in range(width)]
        return rows

    def _row(self, stream: int, position: int) -> int:
        number, offset = divmod(position, self.window)
        kept = self._kept.get(stream)
        if kept is None or kept[0] != number:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "stream", stream, number))
            kept = self._kept[stream] = number, torch.randperm(self.window, generator=generator).tolist()
        return (number * self.window + kept[1][offset]) * self.streams * self.lanes + stream


class StreamPart(Dataset[Any]):
    """Training rows of streams: all but the first ones of each, which are held out.

    Windows are read whole; those in use are kept. What was read last is where reading goes on; going back, or far
    ahead as after a resume, costs reading up to there.

    Args:
        source: Its parts are the streams.
        streams: See `StreamOrder`.
        lanes: See `StreamOrder`.
        window: Rows that are shuffled among themselves, and decoded together.
        held: Rows of each part that are held out.
        decode: From rows, and their numbers, to a batch of tensors, "index" among them.
        known: How many rows there are to train on, or at least are.
    """

    def __init__(
        self,
        source: RowSource,
        streams: int,
        lanes: int,
        window: int,
        held: int,
        decode: Callable[[Sequence[Row], Tensor], dict[str, Tensor]],
        known: int,
    ) -> None:
        self.source, self.streams, self.lanes, self.window, self.held = source, streams, lanes, window, held
        self.decode, self.known = decode, known
        self._counts: dict[int, int] = {}
        self._windows: OrderedDict[tuple[int, int], dict[str, Tensor]] = OrderedDict()
        self._open: dict[int, tuple[int, Iterator[Row]]] = {}
        weakref.finalize(self, _close, self._open)

    def __len__(self) -> int:
        """Number of examples, as far as it is known."""
        return self.known

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_windows": OrderedDict(), "_open": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        weakref.finalize(self, _close, self._open)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One example as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch of examples."""
        total = self.streams * self.lanes
        taken = list[tuple[dict[str, Tensor], int]]()
        for position in positions:
            row, stream = divmod(position, total)
            number, offset = divmod(row, self.window)
            taken.append((self._window(stream, number), offset))
        return {name: torch.stack([window[name][offset] for window, offset in taken]) for name in taken[0][0]}

    def order(self, batch_size: int, seed: int) -> StreamOrder:
        """The order in which the part is read."""
        return StreamOrder(self.streams, self.lanes, self.window, batch_size, seed)

    def draw(self, count: int, seed: int) -> list[int]:
        """The first rows of all streams: no other rows are cheap to read."""
        return list(range(min(count, self.known)))

    def _window(self, stream: int, number: int) -> dict[str, Tensor]:
        key = stream, number
        if key not in self._windows:
            first = number * self.window
            read = [self._next(stream, first + each) for each in range(self.window)]
            index = torch.tensor([number for number, _ in read]) * self.streams * self.lanes + stream
            self._windows[key] = self.decode([row for _, row in read], index)
            if len(self._windows) > self.streams * self.lanes + 4:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return self._windows[key]

    def _next(self, stream: int, row: int) -> tuple[int, Row]:
        """A row of the endless stream, and its number in the stream; cheap if it is the next one.

        Raises:
            ValueError: If the stream has no row, or fewer than before.
        """
        while True:
            count = self._counts.get(stream)
            wanted = row if count is None else row % count
            at, rows = self._open.pop(stream, (-1, iter(())))
            following = at == wanted
            found = next(rows if following else (rows := self.source.rows(stream, self.held + wanted)), None)
            if found is not None:
                self._open[stream] = wanted + 1, rows
                return wanted, found
            if count is None:
                self._counts[stream] = wanted if following else self._count(stream)
            if count is not None or self._counts[stream] == 0:
                raise ValueError(
                    f"{self.source.name(stream, self.held + wanted)} is not there: the stream has no more rows to "
                    "train on than are held out, or became shorter; check it, or hold fewer out"
                )

    def _count(self, stream: int) -> int:
        return sum(1 for _ in self.source.rows(stream, self.held))


def _close(streams: dict[int, tuple[int, Iterator[Row]]]) -> None:
    """Leave streams while the modules that they need are still there, also when the interpreter ends."""
    while streams:
        _, (_, rows) = streams.popitem()
        if isinstance(rows, Generator):
            rows.close()
