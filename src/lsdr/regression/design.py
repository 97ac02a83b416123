"""The columns of a model for new rows, factors as dummies of their levels."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lsdr.regression.sources.encoded import Place
from lsdr.regression.sources.frames import table_of
from lsdr.regression.sources.tables import factor, numbers

_HERE = "the table"


def design_matrix(
    table: Any,
    columns: Sequence[tuple[str, str]],
    *,
    features: Sequence[str],
    model: Sequence[str],
    levels: Mapping[str, tuple[str, ...]],
) -> NDArray[np.float64]:
    """The model's columns for new rows.

    Args:
        table: A table with columns by name (pandas, polars, Arrow, a dict of arrays), or a two-dimensional array.
        columns: (term, level) of the columns wanted; level "" for a number.
        features: What an array's columns are if it has as many.
        model: What they are otherwise.
        levels: Every factor's levels, the reference level among them.

    Returns:
        (n, len(columns)) float64. Missing values are nan in every column of their factor.

    Raises:
        ValueError: If a column is missing, text where numbers must be, or a level is unknown.
        TypeError: If the table is neither.
    """
    needed = tuple(dict.fromkeys(name for name, _ in columns))
    if not hasattr(table, "columns") and not isinstance(table, Mapping):
        array, order = _array(table, features, model)
        if array.dtype.kind in "buif" and not any(name in levels for name in needed):
            return np.asarray(array[:, [order.index(name) for name, _ in columns]], np.float64)
        table = {name: array[:, position] for position, name in enumerate(order) if name in needed}
        if not table:
            return np.empty((len(array), 0))
    if not needed:
        return np.empty((_rows(table), 0))
    arrow = table_of(picked(table, needed), _HERE)
    matrix = np.empty((arrow.num_rows, len(columns)))
    codes = {name: _codes(name, arrow.column(name), levels[name]) for name in needed if name in levels}
    for position, (name, level) in enumerate(columns):
        if name in levels:
            matrix[:, position] = codes[name] == levels[name].index(level)
            matrix[codes[name] < 0, position] = np.nan
        else:
            matrix[:, position] = numbers(arrow.column(name), name, Place(_HERE))
    return matrix


def _array(values: Any, features: Sequence[str], model: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
    array = np.asarray(values)
    if array.ndim != 2:
        raise TypeError(
            "Expected a table with named columns (pandas, polars, Arrow, a dict of arrays) or an array of two "
            f"dimensions, got {type(values).__name__} of {array.ndim} dimensions."
        )
    order = list(features if array.shape[1] == len(features) else model)
    if array.shape[1] != len(order):
        raise ValueError(
            f"Expected an array with the {len(features)} columns of the data or the {len(model)} of the model, "
            f"got {array.shape[1]} columns."
        )
    return array, order


def picked(table: Any, needed: Sequence[str]) -> Any:
    """Those columns of a table alone.

    Raises:
        ValueError: If one is not there.
        TypeError: If it is no table.
    """
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise TypeError(f"Expected a table with named columns, got {type(table).__name__}.")
    have = list(table) if isinstance(table, Mapping) else list(getattr(table, "column_names", table.columns))
    for name in needed:
        if name not in have:
            near = get_close_matches(name, [str(other) for other in have], n=1)
            raise ValueError(
                f"A column {name!r} is needed, which the table lacks"
                + (f"; did you mean {near[0]!r}?" if near else ".")
            )
    if isinstance(table, Mapping):
        return {name: table[name] for name in needed}
    return table.select(list(needed)) if hasattr(table, "column_names") else table[list(needed)]


def _rows(table: Any) -> int:
    if isinstance(table, Mapping):
        return len(next(iter(table.values()))) if table else 0
    return int(table.shape[0])


def _codes(name: str, column: pa.ChunkedArray, levels: tuple[str, ...]) -> NDArray[np.intp]:
    """Positions in `levels`; -1 where missing."""
    found = factor(column, name, Place(_HERE))
    unknown = [level for level in found.levels if level not in levels]
    if unknown:
        row = int(np.flatnonzero(found.codes == found.levels.index(unknown[0]))[0])
        shown = ", ".join(map(repr, levels[:8])) + (", ..." if len(levels) > 8 else "")
        raise ValueError(
            f"Column {name!r} has the level {unknown[0]!r} in row {row + 1}, but the fit saw only {shown}."
        )
    place = np.array([levels.index(level) for level in found.levels] + [-1], dtype=np.intp)
    return np.asarray(place[found.codes])
