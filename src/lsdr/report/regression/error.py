"""Error and information criteria against the size of the model, with the chosen size marked."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lsdr.report.figures.style import COLOURS, DATA, Key, Plot, add_band, canvas, finish
from lsdr.report.numbers import number
from lsdr.report.plain import scalar
from lsdr.report.regression.steps import around, chosen_place, column, least_place, steps_in, training
from lsdr.report.thin import Array

SIZE = "terms in the model"
_BARS = 40  # steps from which on standard errors are a band
_FITTED = "The error on the rows fitted can only rise when a term is dropped"
_PENALISED = (
    "The penalised error on the rows fitted can only rise when a term is dropped; drawn is the error without it"
)
_LOG = 20  # times the least error from which on the axis is logarithmic


def error_plots(found: Mapping[str, Any]) -> list[Plot]:
    """The whole path, the same near the choice where that shows more, and the information criteria."""
    steps = steps_in(found)
    place = chosen_place(found, steps)
    part = around(steps, place)
    near = steps[part]
    plots = [_errors(found, steps, steps)]
    if 1 < len(near) < len(steps):
        plots.append(_errors(found, steps, near))
    plots.append(_criteria(found, near if len(near) > 1 else steps))
    return [plot for plot in plots if plot]


def mark_chosen(figure: Any, found: Mapping[str, Any]) -> list[Key]:
    """A dotted line where the choice is, and its key."""
    steps = steps_in(found)
    place = chosen_place(found, steps)
    if place is None:
        return []
    figure.add_vline(x=scalar(steps[place]["size"]), line={"color": DATA, "width": 1.5, "dash": "dot"})
    return [Key("chosen size", DATA, "dot", "")]


def _errors(found: Mapping[str, Any], every: list[dict[str, Any]], steps: list[dict[str, Any]]) -> Plot | None:
    size, heldout, fitted = column(steps, "size"), column(steps, "mse_heldout"), training(found, steps)
    known = np.concatenate([heldout, fitted])
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return None
    close = len(steps) < len(every)
    log = bool(known.max() > _LOG * known.min())
    figure = canvas(SIZE, "mean squared error", log_y=log)
    keys = []
    if np.isfinite(heldout).any():
        keys.append(_heldout(figure, size, heldout, column(steps, "mse_heldout_se"), log=log))
    keys.append(_line(figure, size, fitted, "training, in-sample", COLOURS[1], "dash", "training", log=log))
    least = least_place(every)
    if least is not None and close:
        best = every[least]
        limit = scalar(best.get("mse_heldout")) + scalar(best.get("mse_heldout_se"))
        if math.isfinite(limit) and math.log10(limit) < 300:
            figure.add_hline(y=limit, line={"color": COLOURS[2], "width": 1.5, "dash": "dash"})
            keys.append(Key("least held-out error plus its standard error", COLOURS[2], "dash", ""))
    keys += mark_chosen(figure, found)
    _whole_sizes(figure, size)
    fitted_by = _PENALISED if scalar(found.get("ridge")) > 0 else _FITTED
    caption = _caption(every, fitted_by, heldout=bool(np.isfinite(heldout).any()), close=close)
    title = "The same, near the choice" if close else "Error against size"
    alt = f"Mean squared error against the number of terms, from {number(size[-1])} to {number(size[0])}."
    return finish(figure, "error-near" if close else "error", title, caption, alt, keys)


def _caption(steps: list[dict[str, Any]], fitted: str, *, heldout: bool, close: bool) -> str:
    if close:
        return "The one-standard-error rule takes the smallest model whose held-out error is below the dashed line."
    text = f"Terms are removed from right to left. {fitted}"
    if not heldout:
        return f"{text}. That tells nothing about which size predicts best."
    least = least_place(steps)
    size = f", and here is least with {number(scalar(steps[least]['size']))}" if least is not None else ""
    return (
        f"{text}. The error on rows left out of the fit may fall{size}; the whole selection was run again inside every "
        "fold. One standard error is drawn."
    )


def _heldout(figure: Any, size: Array, error: Array, spread: Array, *, log: bool) -> Key:
    many = len(size) > _BARS
    if many and np.isfinite(spread).any():
        low = error - spread
        add_band(figure, size, np.where(low > 0, low, np.nan) if log else low, error + spread, COLOURS[0], "heldout")
    label = "held out, cross-validated"
    key = _line(figure, size, error, label, COLOURS[0], "solid", "heldout", log=log)
    if not many:
        figure.data[-1].error_y = {
            "array": np.nan_to_num(spread), "color": COLOURS[0], "thickness": 1.5, "width": 4, "visible": True,
        }  # fmt: skip
    return key


def _line(figure: Any, x: Array, y: Array, label: str, colour: str, dash: str, group: str, *, log: bool = False) -> Key:
    mode = "lines" if len(x) > _BARS else "lines+markers"
    figure.add_scatter(
        x=x, y=np.where(y > 0, y, np.nan) if log else y, mode=mode, legendgroup=group, name=label, marker={"size": 6},
        line={"color": colour, "width": 2, "dash": dash},
        hovertemplate=f"%{{x}} terms<br>%{{y:.5~g}}<extra>{label}</extra>",
    )  # fmt: skip
    return Key(label, colour, dash, group)


def _criteria(found: Mapping[str, Any], steps: list[dict[str, Any]]) -> Plot | None:
    size = column(steps, "size")
    whole = steps_in(found)
    figure, keys = canvas(SIZE, "above its least value"), []
    for place, (name, label) in enumerate((("aic", "AIC"), ("bic", "BIC"))):
        values, every = column(steps, name), column(whole, name)
        if np.isfinite(values).any():
            above = values - np.nanmin(every)
            keys.append(_line(figure, size, above, label, COLOURS[place], ("solid", "dash")[place], name))
    if not keys:
        return None
    keys += mark_chosen(figure, found)
    _whole_sizes(figure, size)
    caption = (
        "n ln(RSS/n) plus 2 for each coefficient (AIC) or plus ln n for each (BIC), of the whole data, above the least "
        "on the path. Both count a model's coefficients as if nobody had searched for them, and so take too many."
    )
    alt = "AIC and BIC above their least value against the number of terms."
    return finish(figure, "criteria", "Information criteria", caption, alt, keys)


def _whole_sizes(figure: Any, size: Array) -> None:
    """Sizes are whole numbers: no label between two of them."""
    low, high = float(size.min()), float(size.max())
    figure.update_xaxes(range=[low - 0.03 * (high - low) - 0.2, high + 0.03 * (high - low) + 0.2])
    if high - low <= 16:
        figure.update_xaxes(dtick=1 if high - low <= 10 else 2)
