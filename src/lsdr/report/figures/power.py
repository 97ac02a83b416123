"""Radial power spectra of samples and of the data."""

from dataclasses import replace
from typing import Any

import numpy as np

from lsdr.report.figures.style import (
    DATA,
    Curve,
    Key,
    Pen,
    Plot,
    add_band,
    add_curves,
    canvas,
    finish,
    gather,
    keys_of,
    pens,
)
from lsdr.report.load import Results, Run
from lsdr.report.plain import mapping, vector
from lsdr.report.thin import Array

_GREY = "#6e7682"  # a band in the data's black would hide the grid


def power_plot(results: Results) -> Plot | None:
    """Power by spatial frequency, with the band that holds 80 % of the real images."""
    found = {method.name: curves for method in results.methods if (curves := gather(method, _samples))}
    if not found:
        return None
    figure = canvas("spatial frequency (cycles per pixel)", "power per coefficient", log_x=True, log_y=True)
    keys = []
    data = next((data for run in results.runs if len((data := _data(run))[0])), None)
    if data is not None:
        frequency, middle, low, high = data
        add_band(figure, frequency, low, high, _GREY, "data")
        figure.add_scatter(
            x=frequency, y=middle, mode="lines", line={"color": DATA, "width": 2.5, "dash": "dot"}, legendgroup="data",
            name="data", hovertemplate="frequency %{x:.3~g}<br>power %{y:.3~g}",
        )  # fmt: skip
        keys.append(Key("data, with its 10–90 % band" if len(low) and len(high) else "data", DATA, "dot", "data"))
    drawn = pens(results)
    banded = _add_samples_band(figure, found, drawn)
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], "frequency %{x:.3~g}<br>power %{y:.3~g}")
    caption = (
        "Mean power of the images at each spatial frequency, coarse structure left, fine detail right. Samples as "
        "detailed as the data lie on the dotted line; above it they are noisier, below it smoother."
    )
    alt = f"Radial power spectra of samples of {', '.join(found)} against the data's, both axes logarithmic."
    own = keys_of(drawn, list(found))
    own = [replace(key, label=f"{key.label}, with their 10–90 % band") if banded else key for key in own]
    plot_keys = [*keys, *own]
    return finish(figure, "power", "Power spectra of samples and data", caption, alt, plot_keys, 400)


def _add_samples_band(figure: Any, found: dict[str, list[Curve]], drawn: dict[str, Pen]) -> bool:
    """The band of the samples, where there are those of one run alone: more would hide each other."""
    if len(found) != 1 or len(curves := next(iter(found.values()))) != 1:
        return False
    spectrum = mapping(curves[0].run.curves.get("power_spectrum"))
    low, high = vector(spectrum.get("samples_low")), vector(spectrum.get("samples_high"))
    frequency, low, high = _positive(vector(spectrum.get("frequency")), low, high)
    low, high = (np.where(edge > 0, edge, np.nan) for edge in (low, high))
    if not (np.isfinite(low).any() and np.isfinite(high).any()):
        return False
    pen = drawn[next(iter(found))]
    add_band(figure, frequency, low, high, pen.colour, pen.group)
    return True


def _positive(*columns: Array) -> tuple[Array, ...]:
    """Columns without frequency zero, which a logarithmic axis has no place for."""
    size = min(len(column) for column in columns if len(column))
    kept = columns[0][:size] > 0
    return tuple(column[:size][kept] if len(column) else column for column in columns)


def _samples(run: Run) -> tuple[Array, Array]:
    spectrum = mapping(run.curves.get("power_spectrum"))
    frequency, power = vector(spectrum.get("frequency")), vector(spectrum.get("samples"))
    if not len(frequency) or not len(power):
        return np.empty(0), np.empty(0)
    frequency, power = _positive(frequency, power)
    return frequency, np.where(power > 0, power, np.nan)


def _data(run: Run) -> tuple[Array, ...]:
    spectrum = mapping(run.curves.get("power_spectrum"))
    frequency, *columns = (vector(spectrum.get(name)) for name in ("frequency", "data", "data_low", "data_high"))
    if not len(frequency) or not len(columns[0]):
        return (np.empty(0),) * 4
    return _positive(frequency, *columns)
