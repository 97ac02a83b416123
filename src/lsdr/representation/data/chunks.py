"""Rows of Parquet files a chunk at a time, in memory that does not depend on the size of the files."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Integers = NDArray[np.int64]
# Whatever a chunk becomes: arrays by name, all with one row for each of its rows.
Columns = Mapping[str, Any]

# Of each column of an open file: what it reads at a time.
_BUFFER = 2**16
_PIECE_ROWS = 2**12


class Groups:
    """The row groups of some files.

    Args:
        paths: The files, in order.
        limit: Use only so many rows, the first ones of each row group, the same share of each.

    Raises:
        ValueError: If a file cannot be read, or none has a row.
    """

    def __init__(self, paths: Sequence[str], limit: int | None = None) -> None:
        self.paths = tuple(paths)
        places, lengths, sizes = list[tuple[int, int]](), list[int](), list[int]()
        for file, path in enumerate(self.paths):
            try:
                metadata = pq.read_metadata(path)
            except (OSError, pa.ArrowException) as error:
                raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                if group.num_rows:
                    places.append((file, number))
                    lengths.append(group.num_rows)
                    sizes.append(group.total_byte_size)
        if not places:
            raise ValueError(f"{', '.join(self.paths)}: there are no rows")
        self.places: Integers = np.array(places, dtype=np.int64)
        self.lengths: Integers = np.array(lengths, dtype=np.int64)
        if limit is not None and limit < sum(lengths):
            ends = np.concatenate([[0], np.cumsum(self.lengths)])
            self.lengths = np.diff(ends * limit // sum(lengths)).astype(np.int64)
            self.places, self.lengths = self.places[self.lengths > 0], self.lengths[self.lengths > 0]
        self.starts: Integers = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        self.bytes = int(sum(sizes))

    def __len__(self) -> int:
        return len(self.places)

    def locate(self, rows: Integers) -> tuple[Integers, Integers]:
        """The row group of each row, and its number within."""
        group = np.searchsorted(self.starts, rows, side="right") - 1
        return group, rows - self.starts[group]


class ChunkReader:
    """Chunks of row groups, decoded; the last ones are kept, and row groups in use stay open where they were left.

    Reading the chunks of a row group in turn reads it once; going back reads it again from its beginning.

    Args:
        groups: What to read.
        columns: Which columns.
        chunk: Rows of a chunk.
        decode: From the columns of a chunk, and the row that it begins with, to arrays.
        kept: How many chunks to keep, and how many row groups to leave open.
    """

    def __init__(
        self,
        groups: Groups,
        columns: Sequence[str],
        chunk: int,
        decode: Callable[[pa.Table, int], Columns],
        kept: int,
    ) -> None:
        self.groups, self.columns, self.chunk, self.kept = groups, list(columns), chunk, kept
        self._decode = decode
        self._chunks: OrderedDict[tuple[int, int], Columns] = OrderedDict()
        self._open: OrderedDict[int, tuple[int, Iterator[pa.Table]]] = OrderedDict()
        self._metadata: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chunks": OrderedDict(), "_open": OrderedDict(), "_metadata": {}}

    def get(self, group: int, number: int) -> Columns:
        """A chunk of a row group.

        Raises:
            ValueError: If the file cannot be read.
        """
        key = group, number
        if key in self._chunks:
            self._chunks.move_to_end(key)
            return self._chunks[key]
        columns = self._decode(self._read(group, number), int(self.groups.starts[group]) + number * self.chunk)
        self._chunks[key] = columns
        if len(self._chunks) > self.kept:
            self._chunks.popitem(last=False)
        return columns

    def _read(self, group: int, number: int) -> pa.Table:
        file = int(self.groups.places[group, 0])
        following, tables = self._open.pop(group, (-1, iter(())))
        try:
            if not 0 <= following <= number:
                following, tables = 0, self._tables(group)
            while following < number:
                next(tables)
                following += 1
            table = next(tables)
        except (OSError, pa.ArrowException, StopIteration) as error:
            raise ValueError(
                f"{self.groups.paths[file]}: row group {int(self.groups.places[group, 1])} cannot be read ({error}); "
                "the file may be cut short or have been changed, write it again"
            ) from error
        if (number + 1) * self.chunk < self.groups.lengths[group]:
            self._open[group] = number + 1, tables
            if len(self._open) > self.kept:
                self._open.popitem(last=False)
        return table

    def _tables(self, group: int) -> Iterator[pa.Table]:
        """The row group in chunks of exactly `chunk` rows, the last one shorter."""
        file, number = self.groups.places[group].tolist()
        if file not in self._metadata:
            self._metadata[file] = pq.read_metadata(self.groups.paths[file])
        # A buffer makes Arrow read pages as they are needed, where it would load the columns of the row group whole.
        with pq.ParquetFile(self.groups.paths[file], metadata=self._metadata[file], buffer_size=_BUFFER) as opened:
            held, rows = list[Any](), 0
            for batch in opened.iter_batches(
                min(self.chunk, _PIECE_ROWS), row_groups=[number], columns=self.columns, use_threads=False
            ):
                held.append(batch)
                rows += batch.num_rows
                while rows >= self.chunk:
                    table = pa.Table.from_batches(held)
                    yield table.slice(0, self.chunk)
                    held, rows = table.slice(self.chunk).to_batches(), rows - self.chunk
            if rows:
                yield pa.Table.from_batches(held)


def gather(reader: ChunkReader, rows: Integers) -> dict[str, NDArray[Any]]:
    """Rows from wherever they lie, in the order asked for.

    Args:
        reader: Whose chunks hold arrays.
        rows: Which ones, counted over all row groups.
    """
    group, within = reader.groups.locate(rows)
    number, offset = np.divmod(within, reader.chunk)
    found: dict[str, NDArray[Any]] = {}
    keys, inverse = np.unique(group * 2**32 + number, return_inverse=True)
    for each, key in enumerate(keys.tolist()):
        chunk = reader.get(*divmod(key, 2**32))
        at = np.flatnonzero(inverse == each)
        for name, values in chunk.items():
            if name not in found:
                found[name] = np.empty((len(rows), *values.shape[1:]), dtype=values.dtype)
            found[name][at] = values[offset[at]]
    return found
