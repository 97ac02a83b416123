"""Tables in memory: pandas, polars, Arrow, mappings of columns."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def table_of(data: Any, description: str) -> pa.Table:
    """Rows in memory as an Arrow table, its numeric columns without a copy where that can be.

    Args:
        data: An Arrow table or record batch, a polars or pandas frame, a mapping of names to vectors, or a pair (X, y)
            whose columns are then called x0, x1, ..., y.
        description: How messages call it.

    Raises:
        TypeError: If it is none of these.
        ValueError: If its columns differ in length, or mix numbers and text.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    module = type(data).__module__.partition(".")[0]
    if module == "polars" and hasattr(data, "to_arrow"):
        return data.to_arrow()
    if module == "pandas" and hasattr(data, "columns"):
        return _columns({name: data.iloc[:, j] for j, name in enumerate(_once(data.columns, description))}, description)
    if isinstance(data, Mapping):
        return _columns({_name(name): values for name, values in data.items()}, description)
    if isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
        if type(x).__module__.partition(".")[0] in ("pandas", "polars"):
            table = table_of(x, description)
            return table.append_column("y", _array(y, "y", description))
        x = np.asarray(x)
        if x.ndim != 2 or len(x) != len(y):
            raise ValueError(
                f"{description} is a pair (X, y) of shapes {x.shape} and {np.shape(y)}: they must be (n, p) and (n,)"
            )
        return _columns(
            {f"x{j}": x[:, j] for j in range(x.shape[1])} | {"y": np.asarray(y).reshape(len(x))}, description
        )
    raise TypeError(
        f"{description} is a {type(data).__name__}, which is no table: give an Arrow table, a polars or pandas frame, "
        "a dict of columns, or a pair (X, y)"
    )


def _once(names: Any, description: str) -> list[str]:
    found = [_name(name) for name in names]
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise ValueError(f"{description} has two columns named {twice[0]!r}: rename one of them")
    return found


def _name(name: Any) -> str:
    return name if isinstance(name, str) else str(name)


def _columns(columns: Mapping[str, Any], description: str) -> pa.Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of {description} differ in length: {lengths}")
    return pa.table({name: _array(values, name, description) for name, values in columns.items()})


def _array(values: Any, name: str, description: str) -> Any:
    module = type(values).__module__.partition(".")[0]
    if module == "pandas" and isinstance(getattr(values, "dtype", None), np.dtype):
        values = values.to_numpy()
    elif module not in ("pandas", "polars", "pyarrow") and hasattr(values, "__array__"):
        values = np.asarray(values)
    try:
        if isinstance(values, np.ndarray):
            # NaN in numbers stays NaN (both are missing): marking nulls would cost a copy.
            return pa.array(np.ascontiguousarray(values), from_pandas=values.dtype.kind == "O")
        if module == "polars":
            return values.to_arrow()
        return values if module == "pyarrow" else pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(
            f"column {name!r} of {description} mixes kinds of values ({str(error).splitlines()[0]}): make it "
            "numbers or text"
        ) from error
