"""Quantities over the steps of training: one plot for each, a line for each method."""

from dataclasses import dataclass, replace

import numpy as np

from lsdr.report.figures.style import Curve, Key, Plot, add_curves, canvas, finish, gather, keys_of, pens
from lsdr.report.load import Results, Run
from lsdr.report.thin import Array

_GREY = "#6b7683"


@dataclass(frozen=True)
class Line:
    """One quantity: where it stands, and how it is told from the others of its plot."""

    column: str
    words: str
    dash: str = "solid"
    evaluated: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot: its name, its words, its lines."""

    name: str
    title: str
    axis: str
    caption: str
    lines: tuple[Line, ...]
    log: bool = False


def panel_plot(results: Results, panel: Panel, prefix: str, level: float | None = None) -> Plot | None:
    """The plot of one panel; nothing where no run recorded any of its lines.

    Args:
        results: The runs.
        panel: What to draw.
        prefix: What the plot's name begins with.
        level: Where a dotted line is drawn across.
    """
    drawn = pens(results)
    found: dict[str, dict[Line, list[Curve]]] = {}
    for method in results.methods:
        lines = {line: curves for line in panel.lines if (curves := gather(method, _reader(line)))}
        if lines:
            found[method.name] = lines
    if not found:
        return None
    curves = [curve for lines in found.values() for each in lines.values() for curve in each]
    positive = all(bool((curve.y[np.isfinite(curve.y)] > 0).all()) for curve in curves)
    figure = canvas("training step", panel.axis, log_y=panel.log and positive)
    several = len(panel.lines) > 1
    for name, lines in found.items():
        for line, each in lines.items():
            # Of several quantities in one plot the dash tells which, so that the colour stays the method's.
            pen = replace(drawn[name], dash=line.dash) if several else drawn[name]
            told = f"{line.words}<br>" if several else ""
            add_curves(figure, each, pen, f"{told}step %{{x}}<br>{panel.axis} %{{y:.4~g}}", ends=True)
    if level is not None:
        figure.add_hline(y=level, line={"color": _GREY, "width": 1.5, "dash": "dot"})
    keys = keys_of(drawn, list(found))
    if several:
        shown = [line for line in panel.lines if any(line in lines for lines in found.values())]
        keys = [replace(key, dash="solid") for key in keys] + [Key(line.words, _GREY, line.dash, "") for line in shown]
    alt = f"{panel.title} against training step for {', '.join(found)}."
    return finish(figure, f"{prefix}-{panel.name}", panel.title, panel.caption, alt, keys)


def _reader(line: Line) -> object:
    def read(run: Run) -> tuple[Array, Array]:
        columns = run.evaluations if line.evaluated else run.metrics
        return columns["step"], columns[line.column]

    return read
