"""A stretch of rows, column by column, and the batches made of it: one list-wise mask, every refusal with its row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch, Values
from lsdr.regression.columns import Column
from lsdr.regression.plan import Plan
from lsdr.regression.sources.dealing import blocks_of

# Rows of one batch, and entries of its matrix (32 MiB of float64): what a worker holds at a time.
BATCH_ROWS = 2**16
BATCH_ENTRIES = 2**22


@dataclass(frozen=True, eq=False)
class Factor:
    """Labels of rows: `codes` into `levels`, -1 where missing."""

    codes: NDArray[np.intp]
    levels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of rows that are not part of the design, with a mask of the missing ones."""

    values: NDArray[Any]
    missing: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows as NumPy columns; NaN is missing.

    Attributes:
        features: The features in the plan's order: one matrix (rows, p) where all are numbers and come so, or one by
            one.
        target: Shape (rows,).
        weights: Shape (rows,), or None.
        clusters: Shape (rows,), or None.
        folds: Shape (rows,), or None.
    """

    features: NDArray[np.float64] | tuple[NDArray[np.float64] | Factor, ...]
    target: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None
    clusters: Labels | None = None
    folds: Labels | None = None


@dataclass(frozen=True)
class Place:
    """Names rows for people: counted from 1, a header not counted.

    Args:
        name: The file, or what the rows are called.
        first: Number of rows before the stretch, or what counts them when a message needs the number.
        offset: Rows to add to `first`.
    """

    name: str
    first: int | Callable[[], int] = 0
    offset: int = 0

    def row(self, index: int) -> str:
        """The row `index` (from 0) rows into the stretch."""
        first = self.first if isinstance(self.first, int) else self.first()
        return f"row {first + self.offset + index + 1} of {self.name}"

    def on(self, rows: int) -> "Place":
        """The place so many rows further."""
        return Place(self.name, self.first, self.offset + rows)


def batches_of(rows: Encoded, plan: Plan, part: int, start: int, place: Place) -> Iterator[Batch]:
    """The batches of a stretch of rows.

    Args:
        rows: The stretch.
        plan: What is what.
        part: Number of the part that it lies in.
        start: Where in that part it starts.
        place: Where its first row is, for messages.

    Raises:
        ValueError: If a value is infinite, a weight negative, or (where the plan says so) a value missing.
    """
    names = _names(rows.features, plan)
    total = len(rows.target)
    step = max(1, min(BATCH_ROWS, BATCH_ENTRIES // max(1, len(names))))
    for low in range(0, total, step):
        yield _batch(rows, names, plan, part, start, place, slice(low, min(total, low + step)))


def _batch(
    rows: Encoded, names: tuple[Column, ...], plan: Plan, part: int, start: int, place: Place, at: slice
) -> Batch:
    here = place.on(at.start)
    lost, missing_by = _lost(rows, plan, here, at)
    if lost is not None and plan.missing == "raise":
        row, column = int(np.flatnonzero(lost)[0]), next(iter(missing_by))
        raise ValueError(
            f"{here.row(row)} has a missing value ({', '.join(map(repr, missing_by))} have some; {column!r} first): "
            'fill it in, or leave such rows out with missing="drop"'
        )
    used = None if lost is None else np.flatnonzero(~lost)
    clusters, folds = _labels(rows.clusters, at, used), _labels(rows.folds, at, used)
    return Batch(
        columns=names,
        values=_values(rows.features, at, used),
        y=np.ascontiguousarray(_used(rows.target[at], used)),
        weights=None if rows.weights is None else np.ascontiguousarray(_used(rows.weights[at], used)),
        clusters=clusters,
        blocks=blocks_of(plan, part, start + at.start, at.stop - at.start, used, clusters, folds, here.row),
        missing=0 if lost is None else int(lost.sum()),
        start=start + at.start,
        missing_by=missing_by,
    )


def _names(features: NDArray[np.float64] | tuple[NDArray[np.float64] | Factor, ...], plan: Plan) -> tuple[Column, ...]:
    if not isinstance(features, tuple):
        return tuple((name, "") for name in plan.features)
    names: list[Column] = []
    for name, column in zip(plan.features, features, strict=True):
        names += [(name, level) for level in column.levels] if isinstance(column, Factor) else [(name, "")]
    return tuple(names)


def _lost(rows: Encoded, plan: Plan, place: Place, at: slice) -> tuple[NDArray[np.bool_] | None, dict[str, int]]:
    """Which rows miss a value (None: no row does), and how many values are missing by column."""
    lost: dict[str, NDArray[np.bool_]] = {}

    def look(name: str, values: NDArray[np.float64]) -> None:
        if _surely_finite(values):
            return
        infinite = np.flatnonzero(np.isinf(values))
        if infinite.size:
            raise ValueError(
                f"column {name!r} is infinite ({values[infinite[0]]}) in {place.row(int(infinite[0]))}: correct the "
                "value or make it missing"
            )
        lost[name] = np.isnan(values)

    if isinstance(rows.features, tuple):
        for name, column in zip(plan.features, rows.features, strict=True):
            if isinstance(column, Factor):
                lost[name] = column.codes[at] < 0
            else:
                look(name, column[at])
    else:
        for j, name in enumerate(() if _surely_finite(rows.features[at]) else plan.features):
            look(name, rows.features[at, j])
    look(plan.target, rows.target[at])
    if rows.weights is not None:
        _look_at_weights(rows.weights[at], plan, place)
        look(str(plan.weights), rows.weights[at])
    for labels, role in ((rows.clusters, plan.clusters), (rows.folds, plan.fold_column)):
        if labels is not None and labels.missing is not None:
            lost[str(role)] = labels.missing[at]
    by = {name: int(mask.sum()) for name, mask in lost.items() if mask.any()}
    return (np.any([lost[name] for name in by], axis=0) if by else None), by


def _surely_finite(values: NDArray[np.float64]) -> bool:
    """Whether all are finite, by one number: finite only if every square is. If it is not, each must be looked at."""
    flat = values.ravel(order="K")
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)))


def _look_at_weights(weights: NDArray[np.float64], plan: Plan, place: Place) -> None:
    with np.errstate(invalid="ignore"):
        negative = np.flatnonzero(weights < 0)
        broken = np.flatnonzero((weights != np.floor(weights)) & np.isfinite(weights)) if plan.frequency else negative
    if negative.size:
        row = int(negative[0])
        raise ValueError(f"the weight {plan.weights!r} is {weights[row]} in {place.row(row)}: weights are 0 or more")
    if broken.size:
        row = int(broken[0])
        raise ValueError(
            f"the weight {plan.weights!r} is {weights[row]} in {place.row(row)}, but frequency weights count how often "
            'a row occurred: give whole numbers, or weight_kind="analytic"'
        )


def _values(
    features: NDArray[np.float64] | tuple[NDArray[np.float64] | Factor, ...],
    at: slice,
    used: NDArray[np.intp] | None,
) -> Values:
    if not isinstance(features, tuple):
        return _used(features[at], used)
    columns: list[NDArray[np.float64]] = []
    for column in features:
        if isinstance(column, Factor):
            codes = _used(column.codes[at], used)
            dummies = np.zeros((len(column.levels), len(codes)))
            dummies[codes, np.arange(len(codes))] = 1.0
            columns.extend(dummies)
        else:
            columns.append(_used(column[at], used))
    return tuple(columns)


def _labels(labels: Labels | None, at: slice, used: NDArray[np.intp] | None) -> NDArray[Any] | None:
    return None if labels is None else _used(labels.values[at], used)


def _used(values: NDArray[Any], used: NDArray[np.intp] | None) -> NDArray[Any]:
    return values if used is None else values[used]
