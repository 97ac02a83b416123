"""Whatever holds a table, opened."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lsdr.regression.sources.arrays import open_arrays
from lsdr.regression.sources.files import open_files
from lsdr.regression.sources.iterator import open_batches
from lsdr.regression.sources.memory import open_memory
from lsdr.regression.sources.source import Source


def open_source(source: Any) -> Source:
    """Open a table of any kind.

    Args:
        source: One of

            - a path: a file, a folder, a glob (Parquet, CSV, TSV, Arrow; CSV may be compressed), or a list of paths;
            - a table: polars (lazy ones are streamed), pandas, Arrow, a Hugging Face dataset, a dict of vectors;
            - a pair (X, y) of arrays, whose columns are called x0, x1, ..., y;
            - batches (each a table as above): a function that returns an iterator of them, a list, or an iterator,
              which can be read only once;
            - a `Source`, returned as it is.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is not there, damaged, empty, or its columns are not clear.

    Example:
        >>> source = open_source({"area": [50, 70], "town": ["x", None]})
        >>> source.rows, dict(source.schema)
        (2, {'area': 'number', 'town': 'text'})
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | Path):
        return open_files(source)
    if isinstance(source, list) and source and all(isinstance(each, str | Path) for each in source):
        return open_files(source)
    if isinstance(source, tuple) and len(source) == 2 and hasattr(source[0], "shape"):
        if type(source[0]).__module__.partition(".")[0] in ("pandas", "polars"):
            return open_batches(lambda _: iter([source]), "the pair of frames", repeatable=True, rows=len(source[0]))
        return open_arrays(*source)
    found = open_memory(source)
    if found is not None:
        return found
    if isinstance(source, pa.RecordBatchReader):
        return open_batches(lambda _: iter(source), "the reader", repeatable=False, schema=source.schema)
    if isinstance(source, Iterator):
        return open_batches(lambda _: source, "the iterator", repeatable=False)
    if isinstance(source, Iterable) and not hasattr(source, "shape"):
        return open_batches(lambda _: iter(source), f"the {type(source).__name__}", repeatable=True)
    if callable(source):
        return open_batches(lambda _: iter(source()), "what the function returns", repeatable=True)
    if hasattr(source, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream
        return open_batches(lambda _: iter(reader(source)), f"the {type(source).__name__}", repeatable=True)
    raise TypeError(
        f"cannot read a table from a {type(source).__name__}: give a path, a table (polars, pandas, Arrow, a dict of "
        "columns), a pair (X, y), or batches (a function that returns an iterator of them)"
    )
