"""NumPy arrays as they are: a matrix and a vector, and whatever goes beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import Encoded, Labels, Place
from lsdr.regression.sources.source import PART_ROWS, Part, Source
from lsdr.regression.sources.tables import factor, labels


def open_arrays(
    x: Any,
    y: Any,
    *,
    names: Sequence[str] | None = None,
    target: str = "y",
    description: str = "the arrays",
    **others: Any,
) -> Source:
    """A matrix and a vector as a source.

    Args:
        x: Numbers, shape (n, p); float64 in rows is read without a copy.
        y: Numbers, shape (n,) or (n, 1).
        names: Names of x's columns, by default x0, x1, ...
        target: Name of y.
        description: How messages call it.
        **others: Vectors of n, each a column by its name: weights, clusters, folds.

    Raises:
        ValueError: If shapes do not fit, or names repeat.
        TypeError: If x or y do not hold numbers.

    Example:
        >>> source = open_arrays(np.eye(3), np.arange(3.0), w=np.ones(3))
        >>> source.rows, dict(source.schema)
        (3, {'x0': 'number', 'x1': 'number', 'x2': 'number', 'y': 'number', 'w': 'number'})
    """
    x = _numbers(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, p), got {x.shape}: x.reshape(-1, 1) makes one column of a vector")
    vectors = {target: _numbers(y, target)}
    vectors |= {name: np.asarray(values) for name, values in others.items()}
    for name, values in vectors.items():
        if values.ndim == 2 and values.shape[1] == 1:
            vectors[name] = values = values[:, 0]
        if values.shape != (len(x),):
            raise ValueError(f"{name} must have shape ({len(x)},) like the rows of x, got {values.shape}")
    names = tuple(names) if names is not None else tuple(f"x{j}" for j in range(x.shape[1]))
    if len(names) != x.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns, but {len(names)} names were given")
    every = [*names, *vectors]
    if len(set(every)) != len(every):
        raise ValueError(f"two columns have the same name: {sorted({name for name in every if every.count(name) > 1})}")
    schema = dict.fromkeys(names, "boolean" if x.dtype.kind == "b" else "number")
    schema |= {name: _kind(values) for name, values in vectors.items()}

    def split(plan: Plan, _looking: bool) -> Iterator[Part]:
        rows = max(2**12, min(PART_ROWS, 2**24 // max(1, len(plan.features))))
        for index, low in enumerate(range(0, len(x), rows)):
            held = {name: values[low : low + rows] for name, values in vectors.items() if name in plan.columns}
            piece = _Piece(names, x[low : low + rows], held)
            yield Part(index, len(piece.x), plan, Place(description, low), piece)

    return Source(description, len(x), True, schema, split)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows of the arrays."""

    names: tuple[str, ...]
    x: NDArray[Any]
    vectors: dict[str, NDArray[Any]]

    def __call__(self, plan: Plan, place: Place) -> Iterator[tuple[Encoded, Place]]:
        yield (
            Encoded(
                features=self._features(plan, place),
                target=self._vector(plan.target) if plan.target else np.zeros(len(self.x)),
                weights=None if plan.weights is None else self._vector(plan.weights),
                clusters=self._labels(plan.clusters),
                folds=self._labels(plan.fold_column),
            ),
            place,
        )

    def _features(self, plan: Plan, place: Place) -> Any:
        if plan.features == self.names and not plan.categorical:
            return np.asarray(self.x, np.float64)
        if not plan.categorical and not set(plan.features) & set(self.vectors):
            position = {name: j for j, name in enumerate(self.names)}
            return np.asarray(self.x[:, [position[name] for name in plan.features]], np.float64)
        return tuple(
            factor(pa.array(self._raw(name)), name, place) if name in plan.categorical else self._vector(name)
            for name in plan.features
        )

    def _raw(self, name: str) -> NDArray[Any]:
        if name in self.vectors:
            return self.vectors[name]
        return self.x[:, self.names.index(name)]

    def _vector(self, name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.asarray(self._raw(name), np.float64)
        return values

    def _labels(self, name: str | None) -> Labels | None:
        return None if name is None else labels(pa.array(self._raw(name), from_pandas=True))


def _numbers(values: Any, name: str) -> NDArray[Any]:
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} is sparse; give a dense array ({name}.toarray()), because centring fills the zeros in")
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold real numbers, got an array of {array.dtype}")
    return array


def _kind(values: NDArray[Any]) -> str:
    return {"b": "boolean", "O": "text", "U": "text", "T": "text"}.get(values.dtype.kind, "number")
