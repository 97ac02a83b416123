"""Class labels as numbers from 0, whatever the source wrote."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LABEL_COLUMNS = ("label", "labels", "class", "class_label", "target", "category", "y", "fine_label")


def number_labels(
    values: NDArray[Any], missing: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Number the distinct values of integer or string labels in sorted order.

    Args:
        values: Labels, shape (N,).
        missing: Which of them to leave out, shape (N,).

    Returns:
        The numbers, shape (N,), -1 where the label is missing, and the names; (None, None) where there are fewer
        than two classes to tell apart.

    Example:
        >>> number_labels(np.array(["cat", "dog", "cat"]))
        (array([0, 1, 0]), ('cat', 'dog'))
    """
    present = np.ones(len(values), dtype=bool) if missing is None else ~missing
    distinct, inverse = np.unique(values[present], return_inverse=True)
    if len(distinct) < 2:
        return None, None
    numbers = np.full(len(values), -1, dtype=np.int64)
    numbers[present] = inverse
    return numbers, tuple(str(value) for value in distinct)


def is_label_type(arrow_type: Any) -> bool:
    """Whether an Arrow column can hold labels: integers or strings, dictionary-encoded or not."""
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(
        pa.types.is_integer(arrow_type) or pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type)
    )


def labels_from_arrow(
    column: Any, names: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Number the labels of an Arrow column.

    Args:
        column: A `pyarrow.ChunkedArray` for which `is_label_type` holds.
        names: The class names where the source declares them; its integers are then kept as they are.

    Returns:
        As `number_labels`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    missing = np.asarray(column.is_null().to_numpy(), dtype=bool)
    integers = pa.types.is_integer(column.type)
    values = np.asarray(column.fill_null(0 if integers else "").to_pylist())
    if names is None or not integers:
        return number_labels(values, missing)
    numbers = np.where(missing | (values < 0) | (values >= len(names)), -1, values).astype(np.int64)
    return (numbers, names) if (numbers >= 0).any() else (None, None)
