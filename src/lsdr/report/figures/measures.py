"""Measures: every effect with its interval, and single measures seed by seed."""

import math

import numpy as np

from lsdr.report.figures.style import DATA, Plot, canvas, finish, keys_of, pens, safe
from lsdr.report.load import Results
from lsdr.report.numbers import median
from lsdr.report.verdicts import Verdict, unit

_WIDEST = 1.0


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
        effect = np.array([row.effect / row.scale for row in own])
        low, high = (np.array([getattr(row, end) / row.scale for row in own]) for end in ("low", "high"))
        figure.add_scatter(
            x=100 * effect, y=y, mode="markers", legendgroup=drawn[name].group, name=safe(name),
            marker={"color": drawn[name].colour, "size": 8, "symbol": [_shape(row) for row in own]},
            error_x={"array": 100 * (high - effect), "arrayminus": 100 * (effect - low), "symmetric": False,
                     "color": drawn[name].colour, "thickness": 2, "width": 0},
            text=[safe(f"{row.label}: {row.change} ({row.change_interval}), {row.verdict}") for row in own],
            hovertemplate="%{text}",
        )  # fmt: skip
    labels = [safe(next(row.label for row in rows if row.measure == measure)) for measure in measures]
    figure.update_yaxes(tickvals=list(range(len(measures))), ticktext=[_wrapped(label) for label in labels],
                        range=[len(measures) - 0.5, -0.5], tickfont={"size": 11},
                        gridcolor="rgba(0,0,0,0)")  # fmt: skip
    figure.update_xaxes(range=[-100 * widest, 100 * widest], ticksuffix="%")
    figure.add_vline(x=0, line={"color": DATA, "width": 1})
    caption = (
        f"Left of the line lies less than {results.baseline}, right of it more; which side is better depends on the "
        "measure. Filled: a difference was shown; hollow: none was."
    )
    if max(ends) > _WIDEST:
        caption += " Intervals that reach beyond the edge are cut there."
    alt = (
        f"Effects of {', '.join(methods)} on {len(measures)} measures with 95 % intervals, in per cent of the baseline."
    )
    height = 70 + max(26, 14 * len(methods) + 8) * len(measures)
    return finish(figure, "effects", "Every effect at a glance", caption, alt, keys_of(drawn, methods), height)


def _shape(row: Verdict) -> str:
    return "circle" if row.shown else "circle-open"


def _wrapped(label: str) -> str:
    """Long labels in two lines, so that a phone has room for the plot."""
    words, lines = label.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 20 and len(lines) < 3 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def seed_plots(results: Results, measures: tuple[str, ...]) -> list[Plot]:
    """For each measure one point per run, runs of one seed joined by a line."""
    return [plot for measure in measures if (plot := _seeds(results, measure))]


def _seeds(results: Results, measure: str) -> Plot | None:
    drawn = pens(results)
    columns = {method.name: method for method in results.methods}
    names = [name for name in drawn if any(measure in run.measures for run in columns[name].runs)]
    if not names:
        return None
    label = results.label(measure)
    measured = unit(results, measure)
    figure = canvas("", safe(f"{label} ({measured})" if measured else label))
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
                        range=[-0.5, len(names) - 0.5], gridcolor="rgba(0,0,0,0)")  # fmt: skip
    description = str(results.about(measure).get("description") or "")
    alt = f"{label} of every run, by method: {', '.join(names)}."
    return finish(figure, f"seeds-{measure}".replace("_", "-"), label, description, alt, keys_of(drawn, names), 280)
