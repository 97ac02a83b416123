"""Triangles at the edge of a plot, at levels whose value has no place on its axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsdr.report.figures.style import DATA, Key, Pen
from lsdr.report.thin import Array

_FIRST, _ROW = 0.1, 0.07  # distance from the curves and between two rows, as shares of the curves' height


def add_marks(figure: Any, marks: Sequence[tuple[Pen, Array]], hover: str, *, above: bool) -> None:
    """Draw a row of triangles for each pen, so that none hides another's.

    Args:
        figure: With its curves and level lines drawn already.
        marks: Pens and their places on the x-axis; those without a place take no row.
        hover: What pointing at one shows, a Plotly template.
        above: Above the curves, pointing up; otherwise below them, pointing down.
    """
    rulers = np.array([shape.y0 for shape in figure.layout.shapes], dtype=np.float64)
    values = np.concatenate([*(np.asarray(trace.y, dtype=np.float64) for trace in figure.data), rulers])
    log = figure.layout.yaxis.type == "log"
    values = values[np.isfinite(values)]
    values = np.log10(values) if log else values
    low, high = float(values.min()), float(values.max())
    height = high - low or 1.0
    symbol = "triangle-up" if above else "triangle-down"
    for row, (pen, places) in enumerate(each for each in marks if len(each[1])):
        away = height * (_FIRST + _ROW * row)
        y = high + away if above else low - away
        figure.add_scatter(
            x=places, y=np.full(len(places), 10**y if log else y), mode="markers", legendgroup=pen.group,
            marker={"symbol": symbol, "size": 9, "color": pen.colour}, hovertemplate=hover,
        )  # fmt: skip


def marks_key(label: str, pen: Pen | None, *, above: bool) -> Key:
    """The legend's entry: a triangle in the pen's colour, or in the text's where several have triangles."""
    dash = "triangle-up" if above else "triangle-down"
    return Key(label, pen.colour, dash, pen.group) if pen else Key(label, DATA, dash, "")
