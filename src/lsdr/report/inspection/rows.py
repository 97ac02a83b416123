"""The table of all layers: what stands in a cell, and what it is sorted by."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsdr.report.numbers import number
from lsdr.report.plain import mapping


@dataclass(frozen=True)
class Column:
    """One column of the table of layers."""

    label: str
    hint: str
    read: Callable[[dict[str, Any]], Any]


def _of(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda layer: layer.get(name)


def _delta(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda layer: mapping(layer.get("delta")).get(name)


COLUMNS = (
    Column("σ max", "largest singular value of the weight as a matrix", _of("sigma_max")),
    Column("σ / target", "σ max over sqrt(fan out / fan in)", _of("sigma_over_target")),
    Column("stable rank", "sum of squares over the largest square", _of("stable_rank")),
    Column("effective rank", "exponential of the entropy of the singular values", _of("effective_rank")),
    Column("α", "exponent of the tail of the squared singular values", _of("power_law_exponent")),
    Column("outliers", "values above the Marchenko-Pastur edge", _of("marchenko_pastur_outliers")),
    Column("condition", "largest over smallest singular value, where the storage resolves it", _of("condition_number")),
    Column("dead", "rows and columns that are zero", _of("dead_directions")),
    Column("Δ / base", "norm of the change over the norm of the base", _delta("relative")),
    Column("Δ rank", "effective rank of the change", _delta("rank")),
    Column("intruders", "top directions that the base does not have", _delta("intruder_dimensions")),
)


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number behind it; empty where there is none."""

    text: str
    value: str


@dataclass(frozen=True)
class Row:
    """A layer in the table."""

    name: str
    shape: str
    kind: str
    unknown: str
    cells: list[Cell]


def table(layers: list[dict[str, Any]]) -> tuple[list[Column], list[Row]]:
    """The columns that hold anything, and a row for each layer."""
    used = [column for column in COLUMNS if any(_number(column.read(layer)) is not None for layer in layers)]
    rows = [
        Row(
            name=str(layer["name"]),
            shape="×".join(str(size) for size in layer.get("shape", [])),
            kind=str(layer.get("kind") or layer.get("operator") or ""),
            unknown=", ".join(str(each) for each in layer.get("unknown") or []),
            cells=[_cell(_number(column.read(layer))) for column in used],
        )
        for layer in layers
    ]
    return used, rows


def _number(value: Any) -> float | None:
    if isinstance(value, dict):  # a fit carries its range with it
        value = value.get("exponent", value.get("value"))
    if isinstance(value, list):
        value = len(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _cell(value: float | None) -> Cell:
    return Cell("—", "") if value is None else Cell(number(value), f"{value:.9g}")
