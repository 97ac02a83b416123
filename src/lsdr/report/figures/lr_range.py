"""Learning-rate range test: one ramp through the rates, not a training at each."""

import numpy as np

from lsdr.report.figures.style import DATA, Key, Plot, add_curves, canvas, finish, gather, keys_of, pens
from lsdr.report.load import Results, Run
from lsdr.report.plain import scalar, vector
from lsdr.report.thin import Array

_SUGGESTED = "#7d8793"


def lr_range_plot(results: Results) -> Plot | None:
    """Loss along the ramp, with the loss before it and the rate that it suggests as lines."""
    found = {method.name: curves for method in results.methods if (curves := gather(method, _ramp))}
    if not found:
        return None
    figure = canvas("learning rate, rising step by step", "loss under fixed noise", log_x=True, log_y=True)
    drawn = pens(results)
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], "learning rate %{x:.3~g}<br>loss %{y:.4~g}")
    keys = keys_of(drawn, list(found))
    ramps = [curve.run.lr_range for curves in found.values() for curve in curves]
    starts = [start for ramp in ramps if (start := scalar(ramp.get("initial_loss"))) > 0 and np.isfinite(start)]
    if starts:
        figure.add_hline(y=float(np.median(starts)), line={"color": DATA, "width": 1.5, "dash": "dot"})
        keys.append(Key("loss before the first step", DATA, "dot", ""))
    rates = [rate for ramp in ramps if (rate := scalar(ramp.get("suggestion"))) > 0 and np.isfinite(rate)]
    if rates:
        figure.add_vline(x=float(np.median(rates)), line={"color": _SUGGESTED, "width": 1.5, "dash": "dash"})
        keys.append(Key("rate it suggests", _SUGGESTED, "dash", ""))
    said = [str(ramp.get("message") or "") for ramp in ramps] if results.single else []
    caption = (
        "A ramp: one short training on a copy, whose rate rises at every step. A rate is seen after all smaller ones "
        "and for a single step, so this is where to begin looking, not what a whole training at that rate would do."
    ) + "".join(f" It says: {message}." for message in said if message)
    alt = f"Loss along a ramp of the learning rate for {', '.join(found)}."
    return finish(figure, "lr-range", "Learning-rate range test", caption, alt, keys)


def _ramp(run: Run) -> tuple[Array, Array]:
    """Rates and losses; the loss of a step that broke is missing."""
    rates, losses = vector(run.lr_range.get("lr")), vector(run.lr_range.get("loss"))
    losses[~(losses > 0)] = np.nan
    return np.where(rates > 0, rates, np.nan), losses
