"""Tables: numbers standardised, categories numbered, missing cells marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsdr.data.labels import LABEL_COLUMNS, is_label_type, labels_from_arrow
from lsdr.data.problem import Problems
from lsdr.moments import Moments
from lsdr.representation.data.fields import TableFields

_MOST_LEVELS = 255
# Fewer levels than these are categories, however few rows there are.
_FEW_LEVELS = 20
# A column of text in which so many cells read as numbers is one of numbers; the others are missing.
_MOSTLY = 0.8


@dataclass(frozen=True)
class Labels:
    """The class of each row, and how the numbers are called."""

    numbers: NDArray[np.int64]
    names: tuple[str, ...]


def find_label(schema: Any, label: str | None, drop: Sequence[str], title: str) -> str | None:
    """The column of labels: the one asked for, else the first called like one.

    Args:
        schema: The Arrow schema.
        label: A column, "" for none, None to look for it by its name (`lsdr.data.labels.LABEL_COLUMNS`, in any case,
            holding integers or strings).
        drop: Columns to leave out.
        title: What to call the table.

    Raises:
        ValueError: If a column asked for is not there, or cannot hold classes.
    """
    for name in (*drop, *([label] if label else ())):
        if name not in schema.names:
            raise ValueError(f"{title} has no column {name!r}; its columns are {', '.join(schema.names)}")
    if label:
        if not is_label_type(schema.field(label).type) and not pa.types.is_boolean(schema.field(label).type):
            raise ValueError(
                f"the column {label!r} of {title} holds {schema.field(label).type}: labels are classes, integers or "
                f"text; leave label out, or name it in drop"
            )
        return label
    if label == "":
        return None
    by_name = {field.name.lower(): field.name for field in schema if is_label_type(field.type)}
    return next((by_name[name] for name in LABEL_COLUMNS if name in by_name and by_name[name] not in drop), None)


def labels_of(column: Any, problems: Problems, name: str, asked: bool) -> Labels | None:
    """Number the classes of a column; None, and a problem noted, where it holds one class alone.

    Args:
        column: A `pyarrow.ChunkedArray`.
        problems: Where to note it.
        name: The column.
        asked: Whether the user named it. If not, a column of too many values for classes is noted too.

    Raises:
        ValueError: If the user named it, and most of its values are different.

    Example:
        >>> labels_of(pa.chunked_array([["b", None, "a"]]), Problems(), "kind", asked=True)
        Labels(numbers=array([ 1, -1,  0]), names=('a', 'b'))
    """
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.string())
    numbers, names = labels_from_arrow(column, None)
    if numbers is None or names is None:
        problems.add("one_class", name, f"the labels {name!r} tell no classes apart; they are not used")
        return None
    if 2 * len(names) > len(column) and len(names) > _FEW_LEVELS:
        said = f"{name!r} holds {len(names)} different values in {len(column)} rows, which are no classes"
        if asked:
            raise ValueError(f'{said}; give another column as label, or label="" for none')
        problems.add("no_classes", name, f"{said}; it is a column like the others")
        return None
    return Labels(numbers, names)


def learn_columns(table: pa.Table, problems: Problems) -> TableFields:
    """See what the columns hold: which are numbers, which categories, their means and levels.

    Booleans and text are categories, with at most 255 levels, the most frequent ones. Text that reads as numbers is
    numbers (where at least four cells of five do; the others are missing), and so are dates and times (seconds).
    Columns that hold one value, nothing at all, another text in each row (names, keys), or lists, bytes and the like,
    are left out and noted. NaN and infinity are missing.

    Args:
        table: Training rows, or enough of them.
        problems: What is left out is noted here.

    Raises:
        ValueError: If no column is left.
    """
    numeric, mean, deviation = list[str](), list[float](), list[float]()
    categorical, levels = list[str](), list[tuple[str, ...]]()
    for name in table.column_names:
        column = table.column(name)
        numbers = as_numbers(column)
        if numbers is None and (words := as_words(column)) is not None:
            numbers = _mostly_numbers(words, name, problems)
        if numbers is not None:
            finite = numbers[np.isfinite(numbers)]
            if not len(finite):
                problems.add("no_values", name, f"the column {name!r} holds no value")
                continue
            moments = Moments.of(finite[:, None])
            spread = float(np.sqrt(moments.covariance()[0, 0]))
            if spread <= 1e-9 * abs(float(moments.mean[0])):
                problems.add("constant", name, f"the column {name!r} is {finite[0]:g} in every row")
                continue
            numeric.append(name)
            mean.append(float(moments.mean[0]))
            deviation.append(spread)
            continue
        words = as_words(column)
        if words is None:
            problems.add("unknown_kind", name, f"the column {name!r} holds {column.type}, no numbers or text")
            continue
        found = _levels(words)
        if len(found) < 2:
            kind, said = ("constant", f"is {found[0]!r} in every row") if found else ("no_values", "holds no value")
            problems.add(kind, name, f"the column {name!r} {said}")
        elif len(found) > _FEW_LEVELS and 2 * len(found) > len(words):
            problems.add("identifier", name, f"the column {name!r} is another text in most rows, so no category")
        else:
            categorical.append(name)
            levels.append(tuple(found[:_MOST_LEVELS]))
    if not numeric and not categorical:
        said = "; ".join(each.message for each in problems.listed) or "it has none"
        raise ValueError(f"no column is left to learn from: {said}")
    return TableFields(
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        cardinalities=tuple(len(each) + 1 for each in levels),
        mean=tuple(mean),
        deviation=tuple(deviation),
        levels=tuple(levels),
    )


def encode_table(table: pa.Table, fields: TableFields) -> dict[str, Tensor]:
    """Rows as numbers.

    Args:
        table: Has the columns of `fields`, and perhaps others; levels that `fields` does not know count as missing.
        fields: Of the table that was learned from.

    Returns:
        "numeric" float32 (n, p), "categorical" int64 (n, q), "missing" bool (n, p + q).

    Raises:
        ValueError: If a column is not there or holds text where numbers were.
    """
    absent = [name for name in (*fields.numeric, *fields.categorical) if name not in table.column_names]
    if absent:
        raise ValueError(f"there is no column {absent[0]!r}; the columns are {', '.join(table.column_names) or 'none'}")
    rows, p = table.num_rows, len(fields.numeric)
    numeric = np.zeros((rows, p), dtype=np.float32)
    categorical = np.zeros((rows, len(fields.categorical)), dtype=np.int64)
    missing = np.zeros((rows, p + len(fields.categorical)), dtype=bool)
    for j, name in enumerate(fields.numeric):
        numbers = as_numbers(table.column(name), strict=False)
        if numbers is None:
            raise ValueError(f"the column {name!r} holds {table.column(name).type}: expected numbers, as in training")
        missing[:, j] = ~np.isfinite(numbers)
        with np.errstate(invalid="ignore", over="ignore"):
            standard = (numbers - fields.mean[j]) / fields.deviation[j]
        # What is a million deviations away would make the sums of float32 useless.
        numeric[:, j] = np.where(missing[:, j], 0, np.clip(standard, -1e6, 1e6))
    for j, (name, levels) in enumerate(zip(fields.categorical, fields.levels, strict=True)):
        words = as_words(table.column(name))
        if words is None:
            words = pc.cast(table.column(name), pa.string())
        codes = pc.index_in(words, value_set=pa.array(levels, words.type))
        categorical[:, j] = np.asarray(pc.fill_null(codes, -1)).astype(np.int64) + 1
        missing[:, p + j] = categorical[:, j] == 0
    return {name: torch.from_numpy(v) for name, v in (("numeric", numeric), ("categorical", categorical))} | {
        "missing": torch.from_numpy(missing)
    }


def as_numbers(column: Any, strict: bool = True) -> NDArray[np.float64] | None:
    """A column as float64, NaN where a cell is missing; None if it holds no numbers.

    Args:
        column: A `pyarrow.ChunkedArray`.
        strict: Whether one text that is no number makes the column text; else such cells are missing.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _parsed(column, strict)
    if pa.types.is_temporal(kind):
        if pa.types.is_time(kind) or pa.types.is_duration(kind):
            column = column.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
        else:
            column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return None
    return np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy(), dtype=np.float64)


def as_words(column: Any) -> Any:
    """A column of text or truth values as text, without blanks around it, null where it is empty; else None."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_boolean(kind):
        return pc.cast(column, pa.string())
    if pa.types.is_integer(kind):
        return pc.cast(column, pa.string())
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    trimmed = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


def _parsed(column: Any, strict: bool) -> NDArray[np.float64] | None:
    words = as_words(column)
    present = pc.drop_null(words)
    if not len(present):
        return np.full(len(words), np.nan)
    plain = pc.match_substring_regex(present, r"(?i)^([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf(inity)?)$")
    if strict and not pc.all(plain).as_py():
        return None
    good = pc.fill_null(pc.match_substring_regex(words, r"(?i)^([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)$"), False)
    numbers = pc.cast(pc.if_else(good, words, None), pa.float64())
    return np.asarray(pc.fill_null(numbers, np.nan).to_numpy(), dtype=np.float64)


def _mostly_numbers(words: Any, name: str, problems: Problems) -> NDArray[np.float64] | None:
    """Text of which most reads as numbers, as numbers."""
    numbers = _parsed(words, strict=False)
    present = len(words) - words.null_count
    other = present - int(np.isfinite(numbers).sum()) if numbers is not None else present
    if numbers is None or other > (1 - _MOSTLY) * present:
        return None
    if other:
        problems.add("not_a_number", name, f"{other} cells of the column {name!r} are no numbers, so missing")
    return numbers


def _levels(words: Any) -> list[str]:
    """The different words, the most frequent first, those as frequent by name."""
    counted = pc.value_counts(pc.drop_null(words))
    pairs = [(str(each["values"]), int(each["counts"])) for each in counted.to_pylist()]
    return [word for word, _ in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))]
