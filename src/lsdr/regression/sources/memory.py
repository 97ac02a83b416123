"""Tables in memory, and what hands out tables bit by bit: sliced into parts where they are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import Place
from lsdr.regression.sources.frames import table_of
from lsdr.regression.sources.iterator import Held, open_batches, part_rows
from lsdr.regression.sources.source import Part, Source
from lsdr.regression.sources.tables import schema_of


def open_memory(data: Any) -> Source | None:
    """A source over rows in memory, or None where `data` is no such thing.

    Args:
        data: A polars, pandas or Arrow table, a mapping of vectors; a polars LazyFrame, an Arrow dataset or a
            Hugging Face dataset, which are read bit by bit.

    Raises:
        ValueError: If columns repeat, differ in length, or mix numbers and text.
    """
    module, name = type(data).__module__.partition(".")[0], type(data).__name__
    if module == "polars" and name == "LazyFrame":
        return _lazy(data)
    if module == "datasets" and hasattr(data, "with_format"):
        make = lambda _: data.with_format("arrow").iter(batch_size=2**14)  # noqa: E731
        return open_batches(make, "the dataset", repeatable=True, rows=getattr(data, "num_rows", None))
    if isinstance(data, pa.Table | pa.RecordBatch | Mapping) or (module, name) == ("polars", "DataFrame"):
        table = table_of(data, "the table")
        return _sliced(table.schema, table.num_rows, lambda low, rows, names: table.slice(low, rows).select(names))
    if (module, name) == ("pandas", "DataFrame"):
        return _pandas(data)
    if module == "pyarrow" and hasattr(data, "to_batches") and hasattr(data, "schema"):
        return open_batches(
            lambda columns: data.to_batches(columns=None if columns is None else list(columns)),
            "the dataset",
            repeatable=True,
            schema=data.schema,
        )
    return None


def _sliced(schema: pa.Schema, rows: int, cut: Any) -> Source:
    def split(plan: Plan, _looking: bool) -> Iterator[Part]:
        step = part_rows(plan)
        for index, low in enumerate(range(0, rows, step)):
            table = cut(low, step, list(plan.columns))
            yield Part(index, table.num_rows, plan, Place("the table", low), Held(table))

    return Source("the table", rows, True, schema_of(schema, "the table"), split)


def _pandas(frame: Any) -> Source:
    # Only columns of objects must be looked at to know what they hold; the others are converted slice by slice.
    names = [name if isinstance(name, str) else str(name) for name in frame.columns]
    first = table_of(frame.iloc[:0], "the table")
    position = {name: j for j, name in enumerate(names)}
    types = {
        name: table_of({name: frame.iloc[:, j]}, "the table").schema.field(0).type if dtype.kind == "O" else None
        for (name, j), dtype in zip(position.items(), frame.dtypes, strict=True)
    }
    schema = pa.schema(
        [field if types[field.name] is None else field.with_type(types[field.name]) for field in first.schema]
    )

    def cut(low: int, rows: int, wanted: Sequence[str]) -> pa.Table:
        return table_of(frame.iloc[low : low + rows, [position[name] for name in wanted]], "the table").rename_columns(
            wanted
        )

    return _sliced(schema, len(frame), cut)


def _lazy(frame: Any) -> Source:
    schema = frame.head(0).collect().to_arrow().schema

    def batches(columns: Sequence[str] | None) -> Iterator[Any]:
        chosen = frame if columns is None else frame.select(list(columns))
        # Chunks may come in any size; their order is the frame's.
        yield from chosen.collect_batches(maintain_order=True)

    return open_batches(batches, "the lazy frame", repeatable=True, schema=schema)
