"""Parquet files: row groups, of which only the needed columns are read."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import BATCH_ENTRIES, BATCH_ROWS, Encoded, Place
from lsdr.regression.sources.source import PART_ROWS
from lsdr.regression.sources.tables import encode, kind_of, schema_of

# A part of so many numbers or fewer (256 MiB of float64) is decoded as a whole.
_WHOLE_NUMBERS = 2**25
# What polars raises over a damaged file: Arrow then says what is wrong with it.
_POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
# How a page starts, in Thrift's compact protocol: type and two sizes, each an int (0x15), and perhaps a checksum.
_PAGE = re.compile(rb"(?:\x15[\x80-\xff]{0,4}[\x00-\x7f]){3}(\x15)?")


@dataclass(frozen=True, eq=False)
class ParquetFile:
    """A file and the kind of every column; `empty` are those that hold nothing, whatever their kind is elsewhere."""

    path: Path
    stamp: tuple[int, int]
    schema: dict[str, str]
    empty: frozenset[str]
    rows: int

    def parts(self, plan: Plan, looking: bool) -> Iterator[tuple[int | None, Place, Any]]:
        """Rows, place and reader of every part: row groups in turn, small ones together."""
        metadata = _opened(self.path, self.stamp)
        groups: list[int] = []
        first = rows = 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            rows += metadata.row_group(group).num_rows
            if rows >= PART_ROWS or group == metadata.num_row_groups - 1:
                read = _Groups(self.path, self.stamp, tuple(groups), first, rows, looking)
                yield rows, Place(str(self.path), first), read
                first, rows, groups = first + rows, 0, []


def open_parquet(path: Path) -> ParquetFile:
    """Read what the file says about itself.

    Raises:
        ValueError: If it is not a readable Parquet file.
    """
    stamp = _stamp(path)
    metadata = _opened(path, stamp)
    with _reading(path):
        schema = metadata.schema.to_arrow_schema()
    empty = frozenset(field.name for field in schema if pa.types.is_null(field.type))
    return ParquetFile(path, stamp, schema_of(schema, str(path)), empty, metadata.num_rows)


@dataclass(frozen=True, eq=False)
class _Groups:
    """Reads row groups, of so many rows, before which `first` rows lie; or looks only at how they begin."""

    path: Path
    stamp: tuple[int, int]
    groups: tuple[int, ...]
    first: int
    rows: int
    looking: bool

    def __call__(self, plan: Plan, place: Place) -> Iterator[tuple[Encoded, Place]]:
        rows = max(1, min(BATCH_ROWS, BATCH_ENTRIES // max(1, len(plan.columns))))
        with _reading(self.path):
            metadata = _opened(self.path, self.stamp)
            schema = metadata.schema.to_arrow_schema()
            words = [name for name in plan.columns if kind_of(schema.field(name).type) == "text"]
            plain = [name for name in words if not pa.types.is_dictionary(schema.field(name).type)]
            batches = None if self.looking else self._decoded(plan.columns, rows, schema)
            if batches is None:
                file = pq.ParquetFile(
                    str(self.path), metadata=metadata, read_dictionary=words, page_checksum_verification=True
                )
                columns, groups = list(plan.columns), list(self.groups)
                batches = file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False)
            for table in _together(batches, rows):
                yield encode(table, plan, place, plain), place
                place = place.on(table.num_rows)

    def _decoded(self, columns: tuple[str, ...], rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch] | None:
        """The batches that Arrow would read, decoded by polars, which is faster at plain numbers; None: let Arrow."""
        plain = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
        if (
            self.rows * len(columns) > _WHOLE_NUMBERS
            or not all(any(holds(schema.field(name).type) for holds in plain) for name in columns)
            or _has_checksums(self.path, self.stamp)
        ):
            return None
        try:
            found = _scanned(self.path, self.stamp).slice(self.first, self.rows).select(columns).collect()
        except _POLARS_ERRORS:
            return None
        return iter(found.rechunk().to_arrow().to_batches(rows)) if len(found) == self.rows else None


@lru_cache(maxsize=16)
def _scanned(path: Path, _stamp: tuple[int, int]) -> pl.LazyFrame:
    # Kept from part to part: it keeps the footer.
    return pl.scan_parquet(path, parallel="none", glob=False, hive_partitioning=False, use_statistics=False)


@lru_cache(maxsize=16)
def _has_checksums(path: Path, stamp: tuple[int, int]) -> bool:
    """Whether the first page has a checksum, which polars would not look at (or looks like no page that we know)."""
    column = _opened(path, stamp).row_group(0).column(0)
    offsets = [offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset]
    with path.open("rb") as file:
        file.seek(min(offsets))
        start = _PAGE.match(file.read(32))
    return start is None or start[1] is not None


def _together(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches that tiny row groups have cut short, put together."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if 4 * count >= rows:
            yield pa.Table.from_batches(held)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _opened(path: Path, stamp: tuple[int, int]) -> Any:
    """The file's metadata, if the file is still the one that was opened."""
    if _stamp(path) != stamp:
        raise ValueError(f"{path} has changed while it was being read")
    return _metadata(path, stamp)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=16)
def _metadata(path: Path, _stamp: tuple[int, int]) -> Any:
    # Kept from part to part: the footer of a wide table is long.
    with _reading(path), pq.ParquetFile(str(path)) as file:
        return file.metadata


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path} is not a readable Parquet file ({str(error).splitlines()[0]}): it may be cut short, write it again"
        ) from error
