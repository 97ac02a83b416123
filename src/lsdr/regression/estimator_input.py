"""What the estimator makes of its arguments: columns, factors, folds and names."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def positions(role: str, wanted: Sequence[str | int], names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns given by name or by position.

    Raises:
        ValueError: If there is no such column.
    """
    if isinstance(wanted, str | int):
        raise ValueError(f"{role} must be a list of columns, got {wanted!r}: write [{wanted!r}].")
    found = []
    for column in wanted:
        if isinstance(column, str):
            found.append(column)
        elif -len(names) <= column < len(names):
            found.append(names[column])
        else:
            raise ValueError(f"{role} names column {column}, but X has {len(names)} columns.")
    return tuple(found)


def has_text(X: Any) -> bool:
    """Whether a data frame has columns that do not hold numbers; an array has none."""
    if isinstance(X, pd.DataFrame):
        return not all(pd.api.types.is_numeric_dtype(kind) for kind in X.dtypes)
    if type(X).__module__.partition(".")[0] == "polars" and hasattr(X, "dtypes"):
        return not all(kind.is_numeric() or str(kind) == "Boolean" for kind in X.dtypes)
    return False


def columns_of(X: Any, names: Sequence[str]) -> dict[str, Any]:
    """The columns of a frame or an array by name."""
    if isinstance(X, pd.DataFrame):
        return {name: X.iloc[:, position] for position, name in enumerate(names)}
    if type(X).__module__.partition(".")[0] == "polars":
        return {name: X.to_series(position) for position, name in enumerate(names)}
    array = np.asarray(X)
    return {name: array[:, position] for position, name in enumerate(names)}


def folds_of(cv: Any, X: Any, y: NDArray[np.float64], rows: int) -> int | NDArray[np.intp]:
    """A number of folds, or the fold of every row.

    Args:
        cv: A number, an array with a label a row, (train, test) pairs, or a splitter that makes such pairs.
        X: What a splitter splits.
        y: The same.
        rows: How many rows.

    Raises:
        ValueError: If pairs are no partition: every row in one test set, and the others of that pair its training set.
    """
    if isinstance(cv, int | np.integer) and not isinstance(cv, bool):
        return int(cv)
    if hasattr(cv, "get_n_splits"):
        cv = list(cv.split(X, y))
    if _are_pairs(cv):
        fold = np.full(rows, -1, dtype=np.intp)
        for number, (train, test) in enumerate(cv):
            inside = np.zeros(rows, dtype=bool)
            inside[test] = True
            trained = np.zeros(rows, dtype=bool)
            trained[train] = True
            if (fold[inside] >= 0).any() or not np.array_equal(trained, ~inside):
                break
            fold[inside] = number
        if (fold < 0).any():
            raise ValueError(
                "cv must divide the rows into folds, each held out once from all the others (KFold, GroupKFold, "
                "LeaveOneGroupOut, an array of labels): repeated or partial splits cannot be had from one pass."
            )
        return fold
    labels = np.asarray(cv)
    if labels.shape != (rows,):
        raise ValueError(
            f"cv must be a number of folds, an array with one label for each of the {rows} rows, or a splitter, "
            f"got {cv!r}."
        )
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)


def _are_pairs(cv: Any) -> bool:
    return isinstance(cv, list) and bool(cv) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in cv)


def unused_name(name: str, taken: Collection[str]) -> str:
    """A name that no column has: the one asked for, with underscores where needed."""
    while name in taken:
        name += "_"
    return name


def target_name(y: Any, taken: Collection[str]) -> str:
    """The name of a pandas or polars series; "y" for anything else."""
    name = getattr(y, "name", None)
    return unused_name(name if isinstance(name, str) and name else "y", taken)


def group_names(groups: Mapping[str, Sequence[str | int]] | None, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups of columns with their columns by name."""
    return {name: positions(f"groups[{name!r}]", members, names) for name, members in (groups or {}).items()}
