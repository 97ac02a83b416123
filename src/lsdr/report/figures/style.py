"""How every plot looks: colours, axes, and lines of seeds under their median."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lsdr.report.figures.ticks import log_ticks, tick_label
from lsdr.report.load import Method, Results, Run
from lsdr.report.thin import Array, middle, thin

DATA = "#000000"
"""Colour of what is real, in every plot; the page's style turns it light on a dark ground."""
# Okabe & Ito (2008), told apart by the colour-blind; black is the data's, and yellow cannot be read on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of what is compared, in order."""
_DASHES = ("solid", "dash", "dot", "dashdot")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_GRID = "#e3e7ec"
_LINE = "#9aa4b0"


@dataclass(frozen=True)
class Key:
    """One entry of a plot's legend; `group` are the traces that it shows and hides."""

    label: str
    colour: str
    dash: str
    group: str


@dataclass(frozen=True)
class Plot:
    """A plot with its words."""

    name: str
    title: str
    caption: str
    alt: str
    json: str
    keys: list[Key]
    height: int = 320


@dataclass(frozen=True)
class Pen:
    """A method's colour and dash, the same in every plot."""

    colour: str
    dash: str
    group: str


@dataclass(frozen=True)
class Curve:
    """One run's curve."""

    run: Run
    x: Array
    y: Array


def pens(results: Results) -> dict[str, Pen]:
    """Each method's pen: the baseline first, so that it looks alike in every report."""
    names = sorted((method.name for method in results.methods), key=lambda name: name != results.baseline)
    return {
        name: Pen(COLOURS[place % len(COLOURS)], _DASHES[place // len(COLOURS) % len(_DASHES)], f"m{place}")
        for place, name in enumerate(names)
    }


def safe(text: object) -> str:
    """Text for a plot: Plotly reads a little HTML and fills in %{...}, so neither may come from a file."""
    return escape(str(text), quote=False).replace("%{", "% {")


def canvas(x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> Any:
    """An empty figure with titled axes."""
    axis = {
        "gridcolor": _GRID,
        "linecolor": _LINE,
        "ticks": "outside",
        "tickcolor": _LINE,
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power",
    }
    layout = go.Layout(
        template=go.layout.Template(),
        font={"family": _FONT, "size": 12, "color": "#28303a"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 48, "r": 18, "t": 8, "b": 40},
        showlegend=False,
        hovermode="closest",
        hoverlabel={"bgcolor": "#ffffff", "bordercolor": _LINE, "font": {"color": "#1c2229", "size": 12}},
        xaxis={**axis, "title": {"text": x, "standoff": 8}, "type": "log" if log_x else "linear"},
        yaxis={**axis, "title": {"text": y, "standoff": 6}, "type": "log" if log_y else "linear"},
    )
    return go.Figure(layout=layout)


def finish(figure: Any, name: str, title: str, caption: str, alt: str, keys: list[Key], height: int = 320) -> Plot:
    """Freeze a figure; its JSON can stand inside a script element."""
    for letter, axis in (("x", figure.layout.xaxis), ("y", figure.layout.yaxis)):
        if axis.type == "log":
            _place_ticks(figure, letter, axis)
    # Plotly escapes < and >, so that the text cannot end the script element.
    return Plot(name, title, caption, alt, figure.to_json(validate=False), keys, height)


def _place_ticks(figure: Any, letter: str, axis: Any) -> None:
    """Set range and labels of a logarithmic axis."""
    shapes = [shape[f"{letter}0"] for shape in figure.layout.shapes]
    values = np.concatenate([np.asarray(trace[letter], dtype=np.float64) for trace in figure.data] + [shapes])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = np.log10(values.min()), np.log10(values.max())
    margin = max(0.04 * (high - low), 0.02)
    low, high = low - margin, high + margin
    ticks = log_ticks(float(low), float(high))
    axis.update(range=[low, high])
    if axis.tickvals is None:
        axis.update(tickvals=ticks, ticktext=[tick_label(tick) for tick in ticks])


def keys_of(pens_: dict[str, Pen], drawn: Sequence[str]) -> list[Key]:
    """Legend entries of the methods drawn."""
    return [Key(name, pen.colour, pen.dash, pen.group) for name, pen in pens_.items() if name in drawn]


def add_curves(figure: Any, curves: list[Curve], pen: Pen, hover: str, *, ends: bool = False) -> None:
    """Draw one method: every seed thin, the median of several thick.

    Args:
        figure: Where to draw.
        curves: One per run.
        pen: The method's.
        hover: What pointing at a value shows, a Plotly template.
        ends: Whether a curve's end is where its run ended; a cross then marks the runs that broke down.
    """
    alone = len(curves) == 1
    for curve in curves:
        x, y = thin(curve.x, curve.y)
        line = {"color": pen.colour, "width": 2 if alone else 1, "dash": pen.dash}
        # Single precision is plenty for a plot and halves the page.
        shared = {"legendgroup": pen.group, "name": safe(curve.run.name), "hovertemplate": hover}
        figure.add_scatter(x=_short(x), y=_short(y), mode=_mode(y), line=line, opacity=1.0 if alone else 0.4, **shared)
        finite = np.flatnonzero(np.isfinite(y))
        if ends and curve.run.state in ("diverged", "crashed") and len(finite):
            last = finite[-1]
            marker = {"symbol": "x", "size": 10, "color": pen.colour, "line": {"width": 1, "color": "#ffffff"}}
            text = f"{safe(curve.run.name)}: {curve.run.state}<extra></extra>"
            figure.add_scatter(
                x=[float(x[last])], y=[float(y[last])], mode="markers", marker=marker,
                **{**shared, "hovertemplate": text},
            )  # fmt: skip
    if not alone:
        x, y = middle([(curve.x, curve.y) for curve in curves])
        figure.add_scatter(
            x=_short(x), y=_short(y), mode=_mode(y), line={"color": pen.colour, "width": 3, "dash": pen.dash},
            legendgroup=pen.group, name=f"{safe(curves[0].run.method)}, median", hovertemplate=hover,
        )  # fmt: skip


def _mode(values: Array) -> str:
    """How to draw a curve: a line through one point cannot be seen."""
    return "lines" if np.isfinite(values).sum() > 1 else "lines+markers"


def gather(method: Method, read: Any) -> list[Curve]:
    """The curves of a method's runs that have one; `read` maps a run to (x, y)."""
    found = []
    for run in method.runs:
        x, y = read(run)
        size = min(len(x), len(y))
        x, y = x[:size], y[:size]
        known = np.isfinite(x)
        if np.isfinite(y[known]).any():
            found.append(Curve(run, x[known], y[known]))
    return found


def _short(values: Array) -> Any:
    return values.astype(np.float32)


def add_band(figure: Any, x: Array, low: Array, high: Array, colour: str, group: str) -> None:
    """Fill what lies between two curves; where either is missing there is no band."""
    size = min(len(x), len(low), len(high))
    x, low, high = x[:size], low[:size], high[:size]
    known = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    edge = {"mode": "lines", "line": {"width": 0, "color": colour}, "hoverinfo": "skip", "legendgroup": group}
    figure.add_scatter(x=x[known], y=low[known], **edge)
    figure.add_scatter(x=x[known], y=high[known], fill="tonexty", fillcolor=faint(colour), **edge)


def faint(colour: str) -> str:
    """A colour's ground.

    Example:
        >>> faint("#0072B2")
        'rgba(0,114,178,0.22)'
    """
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},0.22)"


def between(first: str, last: str, share: float) -> str:
    """A colour on the way from one to another.

    Example:
        >>> between("#000000", "#ff8000", 0.5)
        '#804000'
    """
    mixed = (round(a + share * (b - a)) for a, b in zip(_channels(first), _channels(last), strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
