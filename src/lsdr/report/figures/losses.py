"""Curves of training: loss, penalty, gradient norm, and held-out loss by steps, seconds and noise level."""

from collections.abc import Callable

import numpy as np

from lsdr.report.figures.style import DATA, Curve, Plot, add_curves, canvas, finish, gather, keys_of, pens
from lsdr.report.load import Results, Run
from lsdr.report.plain import mapping, vector
from lsdr.report.thin import Array

Reader = Callable[[Run], tuple[Array, Array]]


def loss_plots(results: Results) -> list[Plot]:
    """Every curve that the runs recorded."""
    several = any(len(method.runs) > 1 for method in results.methods)
    seeds = "Thin lines are seeds, thick lines their median." if several else "One line is one run."
    cross = " A cross marks where a run diverged or crashed." if _broke(results) else ""
    plots = [
        _curves(results, "heldout-steps", "Held-out loss by step", _evaluations("step"),
                ("training step", "held-out loss"),
                f"Denoising loss on images kept out of training; lower is better. {seeds}{cross}"),
        _curves(results, "heldout-seconds", "Held-out loss by wall-clock", _evaluations("seconds"),
                ("training time (s)", "held-out loss"),
                "The same against seconds of training: what a method costs in time moves its line to the right."),
        _curves(results, "loss", "Training loss", _metrics("loss"), ("training step", "training loss"),
                f"Without the penalty. {seeds}{cross} Long runs are thinned; peaks are kept."),
        _curves(results, "penalty", "Penalty", _metrics("penalty"), ("training step", "weighted penalty"),
                "What the regularizers add to the loss, already weighted. Methods without a penalty are not drawn."),
        _curves(results, "grad-norm", "Gradient norm", _gradient, ("training step", "largest gradient norm"),
                "Norm of the whole gradient before clipping, the largest since the record before: no peak is lost."),
        _curves(results, "heldout-sigma", "Held-out loss by noise level", _by_noise, ("noise level σ", "held-out loss"),
                "At the end of training, at fixed noise levels from almost clean to almost pure noise.", log_x=True),
    ]  # fmt: skip
    return [plot for plot in plots if plot]


def _curves(
    results: Results, name: str, title: str, read: Reader, axes: tuple[str, str], caption: str, *, log_x: bool = False
) -> Plot | None:
    found = {method.name: curves for method in results.methods if (curves := gather(method, read))}
    if name == "penalty":  # a penalty of exactly zero is none
        found = {method: curves for method, curves in found.items() if any(np.nanmax(c.y) > 0 for c in curves)}
    if not found:
        return None
    figure = canvas(*axes, log_x=log_x, log_y=_positive([curve for curves in found.values() for curve in curves]))
    drawn = pens(results)
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], f"{axes[0]} %{{x:.4~g}}<br>{axes[1]} %{{y:.4~g}}", ends=not log_x)
    steps = min((run.steps for run in results.runs), default=np.inf)
    if axes[0] == "training step" and max(curve.x[-1] for curves in found.values() for curve in curves) > steps:
        figure.add_vline(x=steps, line={"color": DATA, "width": 1, "dash": "dot"})
        caption += f" Beyond step {steps:.0f} runs only go on to reach {results.baseline}'s wall-clock."
    alt = f"Line plot of {axes[1]} against {axes[0]} for {', '.join(found)}."
    return finish(figure, name, title, caption, alt, keys_of(drawn, list(found)))


def _positive(curves: list[Curve]) -> bool:
    """Whether a logarithmic axis loses nothing."""
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    return bool((values > 0).all())


def _broke(results: Results) -> bool:
    return any(run.state in ("diverged", "crashed") and len(run.metrics["step"]) for run in results.runs)


def _metrics(column: str) -> Reader:
    return lambda run: (run.metrics["step"], run.metrics[column])


def _gradient(run: Run) -> tuple[Array, Array]:
    column = "grad_norm_max" if np.isfinite(run.metrics["grad_norm_max"]).any() else "grad_norm"
    return run.metrics["step"], run.metrics[column]


def _evaluations(axis: str) -> Reader:
    return lambda run: (run.evaluations[axis], run.evaluations["heldout_loss"])


def _by_noise(run: Run) -> tuple[Array, Array]:
    curve = mapping(run.curves.get("heldout_loss_by_sigma"))
    sigma, loss = vector(curve.get("sigma")), vector(curve.get("loss"))
    size = min(len(sigma), len(loss))
    order = np.argsort(sigma[:size])
    return sigma[:size][order], loss[:size][order]
