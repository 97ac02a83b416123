"""Layers' norms while a run trained: those that moved most, as the monitor saw them."""

import math

from lsdr.report.figures.style import COLOURS, Key, Plot, canvas, finish, safe
from lsdr.report.load import Results, Run
from lsdr.report.plain import scalar

_SHOWN = 6
_MOST = 4  # methods
_START, _END = "weights/", "/sigma_max"


def watched_plots(results: Results) -> list[Plot]:
    """One plot a method, of its first run that was monitored."""
    chosen = [run for method in results.methods if (run := next(filter(_curves, method.runs), None)) is not None]
    return [_plot(run, place, results.single) for place, run in enumerate(chosen[:_MOST])]


def _plot(run: Run, place: int, alone: bool) -> Plot:
    curves = _curves(run)
    moved = sorted(curves, key=lambda layer: -_change(curves[layer]))[:_SHOWN]
    figure = canvas("step", "largest singular value", log_y=True)
    keys = []
    for number, layer in enumerate(moved):
        steps, values = zip(*curves[layer], strict=True)
        group = f"w{place}-{number}"
        figure.add_scatter(
            x=steps, y=values, mode="lines+markers", line={"color": COLOURS[number], "width": 2}, marker={"size": 4},
            legendgroup=group, name=safe(layer), hovertemplate="step %{x}<br>%{y:.4~g}",
        )  # fmt: skip
        keys.append(Key(layer, COLOURS[number], "solid", group))
    title = "Layers that moved most" if alone else f"Layers that moved most: {run.name}"
    caption = (
        f"Largest singular value of the {len(moved)} weights whose value changed by the largest factor, of "
        f"{len(curves)} that the monitor followed while the run trained. Times of one weight are as far apart as the "
        "monitor's budget made them."
    )
    alt = f"Largest singular value against step for {', '.join(moved)}."
    return finish(figure, f"watched-{place}", title, caption, alt, keys)


def _curves(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Step and value of each layer that was seen twice or more; zeros, which have no logarithm, are left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for record in run.monitored:
        step = scalar(record.get("step"))
        for name, value in record.items():
            number = scalar(value)
            if name.startswith(_START) and name.endswith(_END) and number > 0 and math.isfinite(number + step):
                curves.setdefault(name[len(_START) : -len(_END)], []).append((step, number))
    return {layer: curve for layer, curve in curves.items() if len(curve) > 1}


def _change(curve: list[tuple[float, float]]) -> float:
    values = [value for _, value in curve]
    return max(values) / min(values)
