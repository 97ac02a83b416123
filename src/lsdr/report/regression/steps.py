"""The steps of a reduction out of its JSON, as arrays; whatever is missing is NaN."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lsdr.report.plain import mapping, mappings, scalar, sequence, vector
from lsdr.report.thin import Array

INTERCEPT = "Intercept"
Step = dict[str, Any]


def steps_in(found: Mapping[str, Any]) -> list[Step]:
    """The steps, the largest model first; those without a size are left out.

    Example:
        >>> [step["size"] for step in steps_in({"steps": [{"size": 1}, {"size": 2}, {"size": None}]})]
        [2, 1]
    """
    known = [step for step in mappings(found.get("steps")) if math.isfinite(scalar(step.get("size")))]
    return sorted(known, key=lambda step: -scalar(step["size"]))


def column(steps: Sequence[Step], name: str) -> Array:
    """One number a step.

    Example:
        >>> column([{"aic": 1.5}, {"aic": None}], "aic")
        array([1.5, nan])
    """
    return np.array([scalar(step.get(name)) for step in steps], dtype=np.float64)


def training(found: Mapping[str, Any], steps: Sequence[Step]) -> Array:
    """Mean squared error of every step on the rows that it was fitted to.

    Example:
        >>> training({"n": 4}, [{"rss": 2.0}])
        array([0.5])
    """
    told = column(steps, "mse")
    rows = scalar(found.get("n"))
    return np.where(np.isfinite(told), told, column(steps, "rss") / rows if rows > 0 else math.nan)


def table_of(steps: Sequence[Step], name: str) -> tuple[list[str], Array]:
    """Values by column of the design: their names, without the intercept, and a row a step.

    Example:
        >>> table_of([{"params": {"Intercept": 1.0, "a": 2.0, "b": 3.0}}, {"params": {"a": 4.0}}], "params")
        (['a', 'b'], array([[ 2.,  3.],
           [ 4., nan]]))
    """
    rows = [mapping(step.get(name)) for step in steps]
    places = {label: place for place, label in enumerate(dict.fromkeys(label for row in rows for label in row))}
    table = np.full((len(rows), len(places)), np.nan)
    for values, row in zip(table, rows, strict=True):
        for label, value in row.items():
            values[places[label]] = scalar(value)
    kept = [place for label, place in places.items() if label != INTERCEPT]
    return [label for label in places if label != INTERCEPT], table[:, kept]


def chosen_place(found: Mapping[str, Any], steps: Sequence[Step]) -> int | None:
    """Where the chosen model stands among the steps.

    Example:
        >>> chosen_place({"chosen": {"size": 1}}, [{"size": 2}, {"size": 1}])
        1
    """
    size = scalar(mapping(found.get("chosen")).get("size"))
    return next((place for place, step in enumerate(steps) if scalar(step["size"]) == size), None)


def least_place(steps: Sequence[Step]) -> int | None:
    """Where the held-out error is least; of equal ones the smallest model.

    Example:
        >>> least_place([{"mse_heldout": 2.0}, {"mse_heldout": 1.0}, {"mse_heldout": 1.0}, {}])
        2
    """
    errors = column(steps, "mse_heldout")
    if not np.isfinite(errors).any():
        return None
    return int(np.flatnonzero(errors == np.nanmin(errors))[-1])


def around(steps: Sequence[Step], place: int | None) -> slice:
    """The steps near the choice: those whose held-out error is within eight standard errors of the least.

    Three steps on either side of the choice are always among them, and sizes from the first such step to the last.

    Example:
        >>> errors = (1.0, 1.0, 1.1, 5.0, 9.0, 30.0, 90.0)
        >>> around([{"mse_heldout": error, "mse_heldout_se": 0.1} for error in errors], 2)
        slice(0, 6, None)
    """
    least = least_place(steps)
    near = [] if place is None else [max(place - 3, 0), min(place + 3, len(steps) - 1)]
    if least is not None:
        errors, spread = column(steps, "mse_heldout"), column(steps, "mse_heldout_se")[least]
        near += np.flatnonzero(errors <= errors[least] + 8 * np.nan_to_num(spread)).tolist()
    return slice(min(near), max(near) + 1) if near else slice(0, len(steps))


def shortened(count: int, room: int, place: int | None) -> list[int | None]:
    """Which of so many rows to show: all, or the first, those around one place, and the last; None is a gap.

    Example:
        >>> shortened(5, 9, 2), shortened(100, 9, 50)
        ([0, 1, 2, 3, 4], [0, None, 48, 49, 50, 51, 52, None, 99])
    """
    if count <= room:
        return list(range(count))
    ends = max(room // 5, 1)
    middle = max(room - 2 * ends - 2, 1)
    at = 0 if place is None else place
    first = min(max(at - middle // 2, 0), count - middle)
    kept = sorted({*range(ends), *range(first, first + middle), *range(count - ends, count)})
    rows: list[int | None] = []
    for here in kept:
        if rows and here != (rows[-1] or 0) + 1:
            rows.append(None)
        rows.append(here)
    return rows


def frequencies(found: Mapping[str, Any]) -> tuple[Array, list[str], Array]:
    """Shares of half-samples: sizes, terms, and a row a size.

    Example:
        >>> frequencies({"frequencies": {"sizes": [1], "terms": ["a", "b"], "values": [[0.9, 0.1]]}})
        (array([1.]), ['a', 'b'], array([[0.9, 0.1]]))
    """
    about = mapping(found.get("frequencies"))
    terms = [str(term) for term in sequence(about.get("terms"))]
    sizes = vector(about.get("sizes"))
    try:
        shares = np.array(sequence(about.get("values")), dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        shares = np.empty(0)
    if shares.shape != (len(sizes), len(terms)) or not shares.size:
        return np.empty(0), [], np.empty((0, 0))
    return sizes, terms, shares
