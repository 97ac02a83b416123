"""Measures: every effect with its interval, and single measures seed by seed."""

import math
import textwrap
from typing import Any

import numpy as np

from lsdr.report.figures.style import DATA, Pen, Plot, canvas, finish, keys_of, pens, safe
from lsdr.report.load import Results
from lsdr.report.numbers import median
from lsdr.report.thin import Array
from lsdr.report.verdicts import Verdict, unit

_WIDEST = 10.0
_LINEAR = 0.02
_TICKS = (0.002, 0.01, 0.05, 0.2, 1.0, 5.0)


def effects_plot(results: Results, found: list[Verdict]) -> Plot | None:
    """Effects at equal steps in per cent of the baseline, with their intervals."""
    rows = [row for row in found if not row.equal_time and math.isfinite(row.scale) and math.isfinite(row.low)]
    if not rows:
        return None
    measures = list(dict.fromkeys(row.measure for row in rows))
    drawn = pens(results)
    methods = [name for name in drawn if any(row.method == name for row in rows)]
    ends = [abs(end / row.scale) for row in rows for end in (row.low, row.high)]
    widest = min(max([*ends, 0.02]) * 1.08, _WIDEST)
    figure = canvas("effect (% of baseline)", "")
    for lane, name in enumerate(methods):
        own = [row for row in rows if row.method == name]
        shift = (lane - (len(methods) - 1) / 2) * 0.7 / len(methods)
        y = [measures.index(row.measure) + shift for row in own]
        effect, low, high = (
            _place(np.array([getattr(row, value) / row.scale for row in own])) for value in ("effect", "low", "high")
        )
        figure.add_scatter(
            x=effect, y=y, mode="markers", legendgroup=drawn[name].group, name=safe(name),
            marker={"color": drawn[name].colour, "size": 8, "symbol": [_shape(row, drawn[name]) for row in own]},
            error_x={"array": high - effect, "arrayminus": effect - low, "symmetric": False,
                     "color": drawn[name].colour, "thickness": 2, "width": 0},
            text=[safe(f"{row.label}: {row.change} ({row.change_interval}), {row.verdict}") for row in own],
            hovertemplate="%{text}", cliponaxis=False,
        )  # fmt: skip
    labels = [_wrapped(safe(next(row.label for row in rows if row.measure == measure))) for measure in measures]
    labels = [
        f"<b>{label}</b>" if measure == results.primary else label
        for measure, label in zip(measures, labels, strict=True)
    ]
    figure.update_yaxes(tickvals=list(range(len(measures))), ticktext=labels,
                        range=[len(measures) - 0.5, -0.5], tickfont={"size": 11},
                        gridcolor="rgba(0,0,0,0)")  # fmt: skip
    edge = _place(np.array([widest]))[0]
    figure.update_xaxes(range=[-edge, edge], tickangle=0, **_ticks(edge))
    figure.add_vline(x=0, line={"color": DATA, "width": 1})
    caption = (
        f"Median effects with 95 % intervals: left of the line is less than {results.baseline}, right of it more; "
        "which side is better depends on the measure. Filled: a difference was shown; hollow: none was. The scale is "
        "stretched around zero."
    )
    if max(ends) > _WIDEST:
        caption += " Intervals that reach beyond the edge are cut there."
    alt = (
        f"Effects of {', '.join(methods)} on {len(measures)} measures with 95 % intervals, in per cent of the baseline."
    )
    height = 60 + max(34, 13 * len(methods) + 10) * len(measures)
    return finish(figure, "effects", "Every effect at a glance", caption, alt, keys_of(drawn, methods), height)


def _place(share: Array) -> Array:
    """Where a relative effect is drawn: evenly within a few per cent, by orders of magnitude beyond."""
    return np.arcsinh(share / _LINEAR)


def _ticks(edge: float) -> dict[str, list[Any]]:
    """Round per cent up to the edge, labelled where a phone has room."""
    values, words, last = [0.0], ["0"], 0.0
    for tick in _TICKS:
        place = float(_place(np.array([tick]))[0])
        if 0.1 * edge < place <= edge:
            room = place - last > 0.28 * edge
            last = place if room else last
            values = [-place, *values, place]
            words = [f"−{100 * tick:g}" if room else "", *words, f"+{100 * tick:g}" if room else ""]
    return {"tickvals": values, "ticktext": words}


def _shape(row: Verdict, pen: Pen) -> str:
    form = "circle" if pen.dash == "solid" else "square"  # a second round of colours has dashed lines
    return form if row.shown else f"{form}-open"


def _wrapped(label: str) -> str:
    """Long labels in two lines, so that a phone has room for the plot."""
    return "<br>".join(textwrap.wrap(label, max(16, len(label) // 2 + 4)))


def seed_plots(results: Results, measures: tuple[str, ...]) -> list[Plot]:
    """For each measure one point per run, runs of one seed joined by a line."""
    return [plot for measure in measures if (plot := _seeds(results, measure))]


def _seeds(results: Results, measure: str) -> Plot | None:
    drawn = pens(results)
    columns = {method.name: method for method in results.methods}
    names = [name for name in drawn if any(measure in run.measures for run in columns[name].runs)]
    if not names:
        return None
    label, measured = results.label(measure), unit(results, measure)
    figure = canvas("", safe(measured or label))
    values = {name: {run.seed: run.measures.get(measure, math.nan) for run in columns[name].runs} for name in names}
    for seed in dict.fromkeys(seed for column in values.values() for seed in column):
        y = [values[name].get(seed, math.nan) for name in names]
        figure.add_scatter(x=list(range(len(names))), y=y, mode="lines", hoverinfo="skip",
                           line={"color": "#9aa4b0", "width": 1})  # fmt: skip
    for place, name in enumerate(names):
        pen = drawn[name]
        known = {seed: value for seed, value in values[name].items() if math.isfinite(value)}
        figure.add_scatter(
            x=[place] * len(known), y=list(known.values()), mode="markers", legendgroup=pen.group, name=safe(name),
            marker={"color": pen.colour, "size": 8, "opacity": 0.75},
            text=["run" if seed is None else f"seed {seed}" for seed in known], hovertemplate="%{text}: %{y:.4~g}",
        )  # fmt: skip
        figure.add_scatter(
            x=[place - 0.22, place + 0.22], y=[median(known.values())] * 2, mode="lines", legendgroup=pen.group,
            name=f"{safe(name)}, median", line={"color": pen.colour, "width": 3}, hovertemplate="median %{y:.4~g}",
        )  # fmt: skip
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=[_wrapped(safe(name)) for name in names],
                        range=[-0.5, len(names) - 0.5], gridcolor="rgba(0,0,0,0)", title=None)  # fmt: skip
    description = str(results.about(measure).get("description") or "")
    alt = f"{label} of every run, by method: {', '.join(names)}."
    return finish(figure, f"seeds-{measure}".replace("_", "-"), label, description, alt, [], 280)
