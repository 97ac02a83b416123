"""A batch of rows of the design, complete and in float64, as every source hands them on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.columns import Column

# Rows and columns, shape (n, p), or its columns one by one, each of shape (n,): as files give them, without a copy.
Values = NDArray[np.float64] | tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows without missing values.

    Attributes:
        columns: The columns of x; other batches of the source may have other levels of its factors.
        values: What x holds, shape (n, p), or its columns.
        y: Shape (n,).
        weights: Shape (n,), none below 0; None: all 1.
        clusters: Labels, shape (n,), or None.
        blocks: The block of each row, shape (n,).
        missing: How many rows were left out because a value was missing.
        start: Row within its part at which the batch starts, counting rows left out.
        missing_by: How many values were missing, by name of the source's column.
    """

    columns: tuple[Column, ...]
    values: Values
    y: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    clusters: NDArray[Any] | None
    blocks: NDArray[np.intp]
    missing: int = 0
    start: int = 0
    missing_by: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p = len(self.values) if isinstance(self.values, tuple) else self.values.shape[1]
        if p != len(self.columns):
            raise ValueError(f"x has {p} columns, but {len(self.columns)} names")
        n = len(self.y) if isinstance(self.values, tuple) else len(self.values)
        if isinstance(self.values, tuple) and any(column.shape != (n,) for column in self.values):
            raise ValueError(f"a column must have shape ({n},) like y")
        others = {"y": self.y, "weights": self.weights, "clusters": self.clusters, "blocks": self.blocks}
        for name, values in others.items():
            if values is not None and values.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},) like the rows of x, got {values.shape}")

    @cached_property
    def x(self) -> NDArray[np.float64]:
        """The matrix, shape (n, p): a copy where the columns came one by one."""
        return rows_of(self.values, np.arange(len(self.y))) if isinstance(self.values, tuple) else self.values


def rows_of(values: Values, at: NDArray[np.intp]) -> NDArray[np.float64]:
    """Some of the rows, shape (rows, p)."""
    if not isinstance(values, tuple):
        return values[at]
    rows = np.empty((len(at), len(values)), order="F")
    for column, own in zip(rows.T, values, strict=True):
        np.take(own, at, out=column, mode="clip")  # all are there; "raise" would go through another buffer
    return rows


class Tally:
    """Counts of what went into a state.

    Attributes:
        rows: Rows of weight above 0, shape (blocks,).
        weights: Sums of the weights, shape (blocks,); the rows where there are none.
        missing: Rows left out because a value was missing.
        missing_by: How many values were missing, by name of the source's column.
    """

    def __init__(self, blocks: int) -> None:
        self.rows: NDArray[np.int64] = np.zeros(blocks, np.int64)
        self.weights: NDArray[np.float64] = np.zeros(blocks)
        self.missing = 0
        self.missing_by: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        blocks = len(self.rows)
        used = batch.blocks if batch.weights is None else batch.blocks[batch.weights > 0]
        self.rows = self.rows + np.bincount(used, minlength=blocks)
        self.weights = self.weights + np.bincount(batch.blocks, batch.weights, minlength=blocks)
        self.missing += batch.missing
        self.missing_by.update(batch.missing_by)

    def merge(self, other: "Tally") -> None:
        """Add the counts of another state."""
        self.rows = self.rows + other.rows
        self.weights = self.weights + other.weights
        self.missing += other.missing
        self.missing_by.update(other.missing_by)
