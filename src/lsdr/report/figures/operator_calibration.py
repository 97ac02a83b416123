"""Whether the denoiser's Jacobian tells its own error: the MMSE identity over noise levels."""

from typing import Any

import numpy as np

from lsdr.report.figures.operator import add_levels_marked, add_methods, levels_of
from lsdr.report.figures.style import COLOURS, DATA, Key, Plot, canvas, finish, gather, pens
from lsdr.report.load import Results, Run
from lsdr.report.operator.levels import Level, calibration, column
from lsdr.report.thin import Array


def calibration_plot(results: Results) -> Plot | None:
    """Of one run the errors measured and told; of several methods by how many decibels these differ."""
    if not results.single:
        return _gaps(results)
    levels = levels_of(results.runs[0]) if results.runs else []
    sigma = column(levels, "sigma")
    told = _told(levels)
    measured, sure = column(levels, "mse"), column(levels, "sure")
    if not (np.isfinite(told) & np.isfinite(measured)).any():
        return None
    figure = canvas("noise level σ", "squared error a pixel", log_x=True, log_y=True)
    keys = [
        _line(figure, sigma, measured, "measured on held-out images", COLOURS[0], "solid", "measured"),
        _line(figure, sigma, told, "σ² tr J / d, from the Jacobian alone", COLOURS[1], "dash", "told"),
    ]
    spread = sigma**2 * column(levels, "trace_error")
    figure.data[-1].error_y = {
        "array": np.nan_to_num(spread), "color": COLOURS[1], "thickness": 1.5, "width": 3, "visible": True,
    }  # fmt: skip
    if (sure > 0).any():
        keys.append(_line(figure, sigma, sure, "SURE, without the clean image", COLOURS[2], "dot", "sure"))
    caption = (
        "For the best denoiser the error is σ² times the mean eigenvalue of its Jacobian (bars: one standard error). "
        "Where the measured error lies above, the network is more certain than it should be; below, it is less. "
        "Stein's estimate (SURE) holds for any network and checks the measurement itself."
    )
    if (told <= 0).any():
        caption += " At levels without a point the Jacobian tells of an error below zero: no covariance has that."
    alt = "Error measured, error told by the Jacobian and SURE against the noise level, both axes logarithmic."
    return finish(figure, "operator-calibration", "Calibration", caption, alt, keys)


def _line(figure: Any, x: Array, y: Array, label: str, colour: str, dash: str, group: str) -> Key:
    figure.add_scatter(
        x=x, y=np.where(y > 0, y, np.nan), mode="lines+markers", legendgroup=group, name=label,
        line={"color": colour, "width": 2, "dash": dash}, marker={"size": 5},
        hovertemplate=f"σ %{{x:.3~g}}<br>%{{y:.4~g}}<extra>{label}</extra>",
    )  # fmt: skip
    return Key(label, colour, dash, group)


def _gaps(results: Results) -> Plot | None:
    found = {method.name: curves for method in results.methods if (curves := gather(method, _gap))}
    if not found:
        return None
    figure = canvas("noise level σ", "told over measured (dB)", log_x=True)
    keys = add_methods(figure, pens(results), found, "σ %{x:.3~g}<br>%{y:.3~g} dB")
    figure.add_hline(y=0, line={"color": DATA, "width": 1.5, "dash": "dot"})
    impossible = "the Jacobian tells of an error below zero"
    below = add_levels_marked(figure, results, _no_error, impossible, pen=None, above=False)
    keys += [Key("best denoiser", DATA, "dot", ""), *below]
    caption = (
        "The error that the Jacobian tells of, σ² tr J / d, over the error measured on held-out images. Below the "
        "dotted line a network is more certain than it should be, above it less."
    )
    alt = f"Ratio of the error told by the Jacobian to the error measured, by noise level, for {', '.join(found)}."
    return finish(figure, "operator-calibration", "Calibration", caption, alt, keys)


def _gap(run: Run) -> tuple[Array, Array]:
    levels = levels_of(run)
    return column(levels, "sigma"), np.where(_told(levels) > 0, calibration(levels), np.nan)


def _no_error(run: Run) -> list[bool]:
    return [told <= 0 for told in _told(levels_of(run)).tolist()]


def _told(levels: list[Level]) -> Array:
    """The error that the Jacobian tells of."""
    return column(levels, "sigma") ** 2 * column(levels, "trace")
