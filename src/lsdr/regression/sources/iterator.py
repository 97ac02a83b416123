"""Batches from anywhere: an iterator, or a function that returns one, cut into parts of equal rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import Encoded, Place
from lsdr.regression.sources.frames import table_of
from lsdr.regression.sources.source import PART_ROWS, Part, Source
from lsdr.regression.sources.tables import encode, schema_of

# Makes an iterator of batches, of which these columns are needed (None: whichever); it may give more.
Make = Callable[[Sequence[str] | None], Iterator[Any]]


def open_batches(
    make: Make, description: str, *, repeatable: bool, rows: int | None = None, schema: pa.Schema | None = None
) -> Source:
    """A source of batches.

    Args:
        make: Returns an iterator of batches (see `table_of`) from the first on; called again for every pass where
            `repeatable`, else once.
        description: How messages call it.
        repeatable: Whether it may be called again.
        rows: How many rows come, where known.
        schema: What the columns are; None looks at the first batch.

    Raises:
        ValueError: If there is no batch at all.
    """
    stream = _Stream(make, description, repeatable)
    if schema is None:
        first = next(stream.tables(None, looking=True), None)
        if first is None:
            raise ValueError(f"{description} gave no batch: nothing to read")
        schema = first.schema
    kinds = schema_of(schema, description)

    def split(plan: Plan, looking: bool) -> Iterator[Part]:
        done = 0
        tables = stream.tables(plan.columns, looking)
        for index, table in enumerate(rechunked(tables, plan, part_rows(plan), description)):
            yield Part(index, table.num_rows, plan, Place(description, done), Held(table))
            done += table.num_rows

    return Source(description, rows, repeatable, kinds, split)


@dataclass(frozen=True, eq=False)
class Held:
    """Rows in memory; only these travel to another process, not the table that they are a slice of."""

    table: pa.Table

    def __getstate__(self) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return bytes(sink.getvalue())

    def __setstate__(self, state: bytes) -> None:
        object.__setattr__(self, "table", pa.ipc.open_stream(state).read_all())

    def __call__(self, plan: Plan, place: Place) -> Iterator[tuple[Encoded, Place]]:
        """The rows in one stretch."""
        yield encode(self.table, plan, place), place


def part_rows(plan: Plan) -> int:
    """Rows of a part that is held in memory: 128 MiB of float64 at most, unless a row is very long."""
    return max(2**12, min(PART_ROWS, 2**24 // max(1, len(plan.columns))))


def rechunked(tables: Iterator[pa.Table], plan: Plan, rows: int, description: str) -> Iterator[pa.Table]:
    """The columns of a plan in tables of equally many rows (the last may have fewer), however long the given are."""
    held: list[pa.Table] = []
    count = seen = done = 0
    for table in tables:
        names = list(plan.columns)
        absent = [name for name in names if name not in table.schema.names]
        if absent:
            raise ValueError(
                f"the batch after row {seen} of {description} has no column {absent[0]!r}, which the first one has"
            )
        seen += table.num_rows
        table = table.select(names)
        while count + table.num_rows >= rows:
            need = rows - count
            yield _joined([*held, table.slice(0, need)], done, description)
            done += rows
            table, held, count = table.slice(need), [], 0
        if table.num_rows:
            held.append(table)
            count += table.num_rows
    if held:
        yield _joined(held, done, description)


def _joined(tables: list[pa.Table], first: int, description: str) -> pa.Table:
    # Batches may disagree in types: whole numbers here, fractions there.
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"{description} changes the kind of a column between rows {first + 1} and "
            f"{first + sum(table.num_rows for table in tables)} ({error}): make it numbers or text throughout"
        ) from error


class _Stream:
    """The batches as tables; those that were looked at come again."""

    def __init__(self, make: Make, description: str, repeatable: bool) -> None:
        self._make = make
        self._description = description
        self._repeatable = repeatable
        self._seen: list[pa.Table] = []
        self._rest: Iterator[pa.Table] | None = None
        self._gone = False

    def tables(self, columns: Sequence[str] | None, looking: bool) -> Iterator[pa.Table]:
        if self._repeatable:
            return self._fresh(columns)
        if self._gone:
            raise ValueError(
                f"{self._description} can be read only once, and it has been read: pass a function that returns a new "
                "iterator each time it is called"
            )
        if self._rest is None:
            self._rest = self._fresh(None)
        if looking:
            return self._look()
        self._gone = True
        return self._drain()

    def _fresh(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        return (table_of(batch, f"a batch of {self._description}") for batch in self._make(columns))

    def _look(self) -> Iterator[pa.Table]:
        yield from self._seen
        assert self._rest is not None  # set by `tables`
        for table in self._rest:
            self._seen.append(table)
            yield table

    def _drain(self) -> Iterator[pa.Table]:
        seen, self._seen = self._seen, []
        while seen:
            yield seen.pop(0)
        assert self._rest is not None  # set by `tables`
        yield from chain(self._rest)
