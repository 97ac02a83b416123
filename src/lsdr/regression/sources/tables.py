"""Arrow rows as NumPy columns: numbers, factors and labels, with NaN or -1 where a value is missing."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import Encoded, Factor, Labels, Place

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
# More levels than this are no factor but a name of the row.
MOST_LEVELS = 1000


def kind_of(type_: pa.DataType) -> str:
    """What a column of this type holds: "number", "boolean", "text", "date", "list", "binary" or the type's name."""
    if pa.types.is_dictionary(type_):
        return "text" if kind_of(type_.value_type) in ("text", "number", "boolean") else kind_of(type_.value_type)
    if pa.types.is_boolean(type_):
        return "boolean"
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if any(holds(type_) for holds in numeric):
        return "number"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_temporal(type_):
        return "date"
    if pa.types.is_nested(type_):
        return "list"
    return "binary" if "binary" in str(type_) else str(type_)


def schema_of(schema: pa.Schema, description: str) -> dict[str, str]:
    """Kind of every column.

    Raises:
        ValueError: If there is no column, or two have the same name.
    """
    if not schema.names:
        raise ValueError(f"{description} has no columns")
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ValueError(f"{description} has two columns named {twice[0]!r}: rename one of them")
    return {field.name: kind_of(field.type) for field in schema}


def encode(table: pa.Table | pa.RecordBatch, plan: Plan, place: Place, plain: Collection[str] = ()) -> Encoded:
    """The columns that a plan asks for.

    Args:
        table: Rows.
        plan: What is what.
        place: Where the rows are, for messages.
        plain: Columns of text that come as dictionaries only because they are read faster so; who made a dictionary
            meant labels, even where they look like numbers.

    Raises:
        ValueError: If one is not there, text where numbers must be, or a factor of too many levels.
    """
    missing = [name for name in plan.columns if name not in table.schema.names]
    if missing:
        raise ValueError(f"{place.name} has no column {missing[0]!r}, which others of its rows have")
    columns: Mapping[str, Any] = {name: table.column(name) for name in plan.columns}
    features = tuple(
        _feature(columns[name], name, plan, place, name in plain)
        if name in plan.categorical
        else numbers(columns[name], name, place)
        for name in plan.features
    )
    # Without a target only labels are wanted (`Source.distinct`).
    target = numbers(columns[plan.target], plan.target, place) if plan.target else np.zeros(table.num_rows)
    return Encoded(
        features=features,
        target=target,
        weights=None if plan.weights is None else numbers(columns[plan.weights], plan.weights, place),
        clusters=None if plan.clusters is None else labels(columns[plan.clusters]),
        folds=None if plan.fold_column is None else labels(columns[plan.fold_column]),
    )


def numbers(column: pa.Array | pa.ChunkedArray, name: str, place: Place) -> NDArray[np.float64]:
    """A column as float64, NaN where null; without a copy where it is float64 in one piece without nulls.

    Raises:
        ValueError: If it is not a column of numbers.
    """
    column = _whole(column)
    kind = kind_of(column.type)
    if kind not in ("number", "boolean"):
        at = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
        if at.size == 0:
            return np.full(len(column), np.nan)
        value = str(column[int(at[0])].as_py())
        raise ValueError(
            f"column {name!r} must hold numbers, but {place.row(int(at[0]))} has {kind}: {value[:80]!r}; correct it, "
            "or name the column in `categorical` if it holds labels"
        )
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_float64(column.type) and column.null_count == 0:
        return _array(column)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    column = column.cast(pa.float64(), safe=False)
    if column.null_count:
        column = pc.fill_null(column, float("nan"))
    return _array(column)


def factor(column: pa.Array | pa.ChunkedArray, name: str, place: Place) -> Factor:
    """A column as codes into its levels, of which only those are kept that occur; sorted, so that rows decide nothing.

    Raises:
        ValueError: If it has more than 1000 levels.
    """
    encoded = _dictionary(column)
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=True)
    words = [None if value is None else _word(value) for value in encoded.dictionary.to_pylist()]
    seen = np.bincount(codes[codes >= 0], minlength=len(words)) > 0
    present = sorted({word for word, used in zip(words, seen, strict=True) if used and word is not None})
    check_levels(name, len(present))
    position = {word: code for code, word in enumerate(present)}
    # One more entry at the end, which -1 finds.
    table = np.array([-1 if word is None else position.get(word, -1) for word in words] + [-1], np.intp)
    return Factor(table[codes], tuple(present))


def _feature(column: Any, name: str, plan: Plan, place: Place, plain: bool) -> Factor:
    found = factor(column, name, place)
    if name not in plan.labels and (
        plain or (kind_of(column.type) == "text" and not pa.types.is_dictionary(column.type))
    ):
        _check_words(found, name, place)
    return found


def _check_words(found: Factor, name: str, place: Place) -> None:
    """Refuse text most of whose values are numbers: each would become a level of its own, and quietly so."""
    numeric = np.array([NUMBER.fullmatch(level.strip()) is not None for level in found.levels] + [False])
    rows = numeric[found.codes]
    known = found.codes >= 0
    if 2 * rows.sum() <= known.sum():
        return
    others = np.flatnonzero(known & ~rows)
    first = int(others[0]) if others.size else int(np.flatnonzero(rows)[0])
    raise ValueError(
        f"column {name!r} holds "
        + ("numbers, but also text" if others.size else "numbers written as text")
        + f": {found.levels[found.codes[first]]!r} in {place.row(first)}; make it numbers, or name the column in "
        "`categorical` if it holds labels"
    )


def check_levels(name: str, levels: int) -> None:
    """Refuse a factor that is a name of the row rather than a property of it.

    Raises:
        ValueError: If there are more than 1000 levels.
    """
    if levels > MOST_LEVELS:
        raise ValueError(
            f"column {name!r} is a factor of more than {MOST_LEVELS} levels, so it looks like an identifier: leave it "
            "out of the features, or merge its values into fewer"
        )


def labels(column: pa.Array | pa.ChunkedArray) -> Labels:
    """A column as labels: whole numbers, numbers or text."""
    column = _whole(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind_of(column.type) in ("number", "boolean"):
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind in "iu":
            return Labels(values, None)
        values = numbers(column, "", Place(""))
        missing = np.isnan(values)
    else:
        values = np.asarray(column.cast(pa.string()).to_pylist(), dtype=object)
        missing = ~pc.is_valid(column).to_numpy(zero_copy_only=False)
    return Labels(values, missing if missing.any() else None)


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) or '""'  # an empty level would be the name of a column of numbers


def _array(column: Any) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return values


def _dictionary(column: pa.Array | pa.ChunkedArray) -> Any:
    column = _whole(column)
    if pa.types.is_floating(column.type):
        column = pa.array(column.to_numpy(zero_copy_only=False), from_pandas=True)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _whole(column: pa.Array | pa.ChunkedArray) -> Any:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
