"""Coefficients and t values of every column along the path."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.report.figures.style import COLOURS, Key, Plot, canvas, finish, safe
from lsdr.report.numbers import plural
from lsdr.report.plain import mapping, scalar
from lsdr.report.regression.error import SIZE, mark_chosen
from lsdr.report.regression.steps import chosen_place, column, steps_in, table_of
from lsdr.report.thin import Array

_NAMED, _DRAWN, _POINTS = 12, 48, 240
_DASHES = ("solid", "dash", "dot")
_OTHER = "#9aa4b0"


def along_plots(found: Mapping[str, Any]) -> list[Plot]:
    """Standardised coefficients and |t|, of the columns that stay longest by name, of some others in grey."""
    return [plot for plot in (_coefficients(found), _tvalues(found)) if plot]


def _coefficients(found: Mapping[str, Any]) -> Plot | None:
    steps = steps_in(found)
    names, values = table_of(steps, "params")
    scales = mapping(found.get("scales"))
    scale = np.array([scalar(scales.get(name)) for name in names]) / scalar(scales.get(str(found.get("target"))))
    if names and np.isfinite(scale).all():
        values, axis = values * scale, "standardised coefficient"
        told = "In standard deviations of the target for one standard deviation of the column."
    else:
        largest = np.nanmax(np.where(np.isfinite(values), np.abs(values), 0.0), axis=0, initial=0.0)
        values, axis = values / np.where(largest > 0, largest, 1.0), "coefficient over its largest"
        told = "Each relative to its own largest along the path, since columns have different units."
    caption = f"{told} A coefficient that moves when another leaves shares what it tells with that one."
    return _plot(found, names, values, "coefficients", "Coefficients along the path", axis, caption, log=False)


def _tvalues(found: Mapping[str, Any]) -> Plot | None:
    names, values = table_of(steps_in(found), "tvalues")
    caption = (
        "Of the numeric columns the lowest goes next; a factor goes as a whole, by its F test. These t are "
        "descriptive: each model was picked by its t, so what survives looks stronger than it is."
    )
    return _plot(found, names, np.abs(values), "tvalues", "|t| along the path", "|t|", caption, log=True)


def _plot(
    found: Mapping[str, Any], names: list[str], values: Array, name: str, title: str, axis: str, caption: str, *,
    log: bool,
) -> Plot | None:  # fmt: skip
    steps = steps_in(found)
    size = column(steps, "size")
    values = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    # A column that leaves last is drawn first and by name.
    stays = np.isfinite(values).sum(axis=0)
    order = [int(place) for place in np.argsort(-stays, kind="stable") if stays[place]]
    if not order:
        return None
    points = _points(len(steps), chosen_place(found, steps))
    figure = canvas(SIZE, axis, log_y=log)
    keys: list[Key] = []
    drawn = order[:_DRAWN]
    for rank, place in reversed(list(enumerate(drawn))):
        named = rank < _NAMED
        colour = COLOURS[rank % len(COLOURS)] if named else _OTHER
        dash = _DASHES[rank // len(COLOURS)] if named else "solid"
        group = f"c{rank}" if named else "others"
        kept = points[np.isfinite(values[points, place])]
        last = np.flatnonzero(np.isfinite(values[:, place]))[-1]
        kept = np.union1d(kept, [last])
        figure.add_scatter(
            x=size[kept], y=_short(values[kept, place]), legendgroup=group,
            mode="lines+markers", line={"color": colour, "width": 2 if named else 1, "dash": dash},
            marker={"size": [0] * (len(kept) - 1) + [7], "color": colour, "opacity": 1, "line": {"width": 0}},
            name=safe(names[place]), hovertemplate=f"%{{x}} terms<br>%{{y:.4~g}}<extra>{safe(names[place])}</extra>",
        )  # fmt: skip
        if named:
            keys.insert(0, Key(names[place], colour, dash, group))
    if len(drawn) > _NAMED:
        keys.append(Key("others" if len(order) == len(drawn) else f"some others of {len(order)}", _OTHER, "solid",
                        "others"))  # fmt: skip
    keys += mark_chosen(figure, found)
    caption += " A dot is the last model that a column is in."
    if len(order) > len(drawn):
        caption += f" The {plural(len(drawn), 'column')} that stay longest are drawn."
    alt = f"{title}: {axis} against the number of terms for {', '.join(names[place] for place in order[:_NAMED])}."
    height = 380 if len(drawn) > 6 else 340
    return finish(figure, name, title, caption, alt, keys, height)


def _points(count: int, chosen: int | None) -> NDArray[np.int64]:
    """Which steps are drawn: all, or enough for a smooth line, the choice among them."""
    if count <= _POINTS:
        return np.arange(count, dtype=np.int64)
    every = np.unique(np.linspace(0, count - 1, _POINTS).round().astype(np.int64))
    return np.union1d(every, [] if chosen is None else [chosen]).astype(np.int64)


def _short(values: Array) -> NDArray[np.float32]:
    """Single precision, which is plenty for a plot and halves the page."""
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    return np.where(np.isfinite(found), found, np.float32(np.nan))
