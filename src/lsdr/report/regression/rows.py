"""Tables of a reduction, for the page and for the terminal: its steps, and the model chosen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsdr.report.numbers import number
from lsdr.report.plain import mapping, scalar, sequence
from lsdr.report.regression.steps import chosen_place, column, frequencies, least_place, steps_in, training

EMPTY = "—"


@dataclass(frozen=True)
class Column:
    """One column: its name, what it is, and a cell for each row."""

    label: str
    hint: str
    cells: list[str]


def path_table(found: Mapping[str, Any]) -> tuple[list[Column], list[str]]:
    """A row a step, the full model first: the columns that hold anything, and what is to be said of each row.

    Example:
        >>> columns, marks = path_table({"steps": [{"size": 1, "removed": "area", "t": 0.5}, {"size": 0}],
        ...                              "chosen": {"size": 0}})
        >>> [(column.label, column.cells) for column in columns], marks
        ([('terms', ['1', '0']), ('goes next', ['area', '—']), ('its t', ['0.500', '—'])], ['', 'chosen'])
    """
    steps = steps_in(found)
    penalised = scalar(found.get("ridge")) > 0
    fitted = "mean squared error on the rows fitted" + ("" if penalised else "; it can only rise")
    columns = [
        Column("terms", "in the model, the intercept not counted", [f"{scalar(step['size']):.0f}" for step in steps]),
        Column("goes next", "the term with the least |t|, of a factor the greatest p of its F",
               [str(step.get("removed") or EMPTY) for step in steps]),
        Column("its t", "t of what goes next, or F with the columns of a factor; descriptive",
               [_statistic(step) for step in steps]),
        Column("training MSE", fitted,
               _numbers(training(found, steps).tolist(), 5)),
        Column("held-out MSE", "mean squared error on rows left out, the selection run again without them",
               _numbers(column(steps, "mse_heldout").tolist(), 5)),
        Column("±", "one standard error of the held-out error, over folds",
               _numbers(column(steps, "mse_heldout_se").tolist(), 2)),
        Column("AIC", "n ln(RSS/n) + 2 (coefficients)", _numbers(column(steps, "aic").tolist(), 6)),
        Column("BIC", "n ln(RSS/n) + ln n (coefficients)", _numbers(column(steps, "bic").tolist(), 6)),
        Column("Cp", "Mallows' Cp, with the full model's variance", _numbers(column(steps, "cp").tolist(), 3)),
    ]  # fmt: skip
    marks = [""] * len(steps)
    least, place = least_place(steps), chosen_place(found, steps)
    if least is not None:
        marks[least] = "least"
    if place is not None:
        marks[place] = "chosen"
    return [each for each in columns if any(cell != EMPTY for cell in each.cells)], marks


def model_table(found: Mapping[str, Any]) -> list[Column]:
    """The chosen model beside what the other half of the rows says; a row a column of the design.

    Example:
        >>> found = {"model": {"params": {"area": 2.0}, "tvalues": {"area": 9.0}}, "split": {"features": []}}
        >>> [(column.label, column.cells) for column in model_table(found)]
        [('column', ['area']), ('coefficient', ['2']), ('t, descriptive', ['9'])]
    """
    own, split = _model(found), mapping(found.get("split"))
    params, held = mapping(own.get("params")), mapping(split.get("params"))
    names = list(dict.fromkeys([*params, *held]))
    shares = _shares(found, len(sequence(mapping(found.get("chosen")).get("features"))))
    columns = [
        Column("column", "of the design: a number, or a level of a factor", names),
        Column("coefficient", "in units of the target for one unit of the column", _values(own, "params", names, 4)),
        Column("std. error", str(found.get("errors") or "classical"), _values(own, "bse", names, 3)),
        Column("t, descriptive", "coefficient over standard error; chosen and computed on the same rows",
               _values(own, "tvalues", names, 3)),
        Column("kept", "share of random half-samples in which the term is among as many",
               [shares.get(name, EMPTY) for name in names]),
        Column("split: coefficient", "on the half of the rows that had no part in the selection",
               _values(split, "params", names, 4)),
        Column("split: 95 %", "interval of the coefficient on that half", [_interval(split, name) for name in names]),
        Column("split: t", "t on that half: chosen on other rows, so it means what it says",
               _values(split, "tvalues", names, 3)),
        Column("split: p", "of that t", [_chance(scalar(mapping(split.get("pvalues")).get(name))) for name in names]),
    ]  # fmt: skip
    return [each for each in columns if any(cell != EMPTY for cell in each.cells)]


def _model(found: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen model; without one of its own what its step tells."""
    own = mapping(found.get("model"))
    steps = steps_in(found)
    place = chosen_place(found, steps)
    return own if own or place is None else steps[place]


def _shares(found: Mapping[str, Any], size: int) -> dict[str, str]:
    """How often each column's term is kept at this size."""
    sizes, terms, values = frequencies(found)
    rows = [row for at, row in zip(sizes.tolist(), values.tolist(), strict=True) if at == size]
    terms_of = mapping(found.get("terms"))
    owner = {str(label): term for term, labels in terms_of.items() for label in sequence(labels)}
    kept = dict(zip(terms, rows[0], strict=True)) if rows else {}
    told = {label: kept[term] for label, term in owner.items() if term in kept}
    return {name: f"{share:.0%}" for name, share in {**kept, **told}.items() if math.isfinite(share)}


def _statistic(step: Mapping[str, Any]) -> str:
    t, f, df = (scalar(step.get(name)) for name in ("t", "F", "df"))
    if math.isfinite(t) or not math.isfinite(f):
        return number(t)
    return f"F {number(f)} ({df:.0f})" if math.isfinite(df) else f"F {number(f)}"


def _values(found: Mapping[str, Any], what: str, names: list[str], digits: int) -> list[str]:
    values = mapping(found.get(what))
    return _numbers([scalar(values.get(name)) for name in names], digits)


def _interval(found: Mapping[str, Any], name: str) -> str:
    ends = [scalar(value) for value in sequence(mapping(found.get("conf_int")).get(name))]
    return f"{number(ends[0])} to {number(ends[1])}" if len(ends) == 2 and all(map(math.isfinite, ends)) else EMPTY


def _chance(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if math.isfinite(p) else EMPTY


def _numbers(values: list[float], digits: int) -> list[str]:
    return [number(value, digits) for value in values]
