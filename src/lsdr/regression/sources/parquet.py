"""Parquet files: row groups, of which only the needed columns are read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import BATCH_ENTRIES, BATCH_ROWS, Encoded, Place
from lsdr.regression.sources.source import PART_ROWS
from lsdr.regression.sources.tables import encode, kind_of, schema_of


@dataclass(frozen=True, eq=False)
class ParquetFile:
    """A file and the kind of every column; `empty` are those that hold nothing, whatever their kind is elsewhere."""

    path: Path
    stamp: tuple[int, int]
    schema: dict[str, str]
    empty: frozenset[str]
    rows: int

    def parts(self, plan: Plan) -> Iterator[tuple[int | None, Place, Any]]:
        """Rows, place and reader of every part: row groups in turn, small ones together."""
        metadata = _opened(self.path, self.stamp)
        groups: list[int] = []
        first = rows = 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            rows += metadata.row_group(group).num_rows
            if rows >= PART_ROWS or group == metadata.num_row_groups - 1:
                yield rows, Place(str(self.path), first), _Groups(self.path, self.stamp, tuple(groups))
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
    path: Path
    stamp: tuple[int, int]
    groups: tuple[int, ...]

    def __call__(self, plan: Plan, place: Place) -> Iterator[tuple[Encoded, Place]]:
        rows = max(1, min(BATCH_ROWS, BATCH_ENTRIES // max(1, len(plan.columns))))
        with _reading(self.path):
            metadata = _opened(self.path, self.stamp)
            schema = metadata.schema.to_arrow_schema()
            words = [name for name in plan.columns if kind_of(schema.field(name).type) == "text"]
            plain = [name for name in words if not pa.types.is_dictionary(schema.field(name).type)]
            file = pq.ParquetFile(
                str(self.path), metadata=metadata, read_dictionary=words, page_checksum_verification=True
            )
            batches = file.iter_batches(
                rows, row_groups=list(self.groups), columns=list(plan.columns), use_threads=False
            )
            for table in _together(batches, rows):
                yield encode(table, plan, place, plain), place
                place = place.on(table.num_rows)


def _together(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches end where row groups do; those of tiny groups are put together."""
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
