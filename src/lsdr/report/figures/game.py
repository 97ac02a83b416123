"""The game of a generator and a discriminator over its steps: losses, outputs, gradients, noise."""

from dataclasses import dataclass, replace

import numpy as np

from lsdr.report.figures.style import Curve, Key, Plot, add_curves, canvas, finish, gather, keys_of, pens
from lsdr.report.load import Results, Run
from lsdr.report.thin import Array

_GREY = "#6b7683"


@dataclass(frozen=True)
class _Line:
    """One quantity: where it stands, and how it is told from the others of its plot."""

    column: str
    words: str
    dash: str = "solid"
    evaluated: bool = False


@dataclass(frozen=True)
class _Panel:
    name: str
    title: str
    axis: str
    caption: str
    lines: tuple[_Line, ...]
    log: bool = False


_PANELS = (
    _Panel(
        "discriminator-loss", "Discriminator’s loss", "loss",
        "Without penalties. Near zero the discriminator tells real from generated without error.",
        (_Line("discriminator/loss", "loss"),),
    ),
    _Panel(
        "generator-loss", "Generator’s loss", "loss",
        "It need not fall: the discriminator moves too. What the samples are worth is shown above.",
        (_Line("generator/loss", "loss"),),
    ),
    _Panel(
        "logits", "Output of the discriminator", "mean output",
        "Higher means more real. Far apart: it tells all; held-out below real: it knows its training examples by "
        "heart.",
        (_Line("logits/real", "real"), _Line("logits/fake", "generated", "dot"),
         _Line("logits_heldout", "real, held out", "dash", evaluated=True)),
    ),
    _Panel(
        "discriminator-gradient", "Gradient norm of the discriminator", "gradient norm",
        "Norm of the whole gradient by its weights before clipping.",
        (_Line("discriminator/grad_norm", "gradient norm"),), log=True,
    ),
    _Panel(
        "generator-gradient", "Gradient norm of the generator", "gradient norm",
        "The same of the generator: where it vanishes the generator no longer learns, where it explodes the game "
        "breaks down.",
        (_Line("generator/grad_norm", "gradient norm"),), log=True,
    ),
    _Panel(
        "slope", "Slope of the discriminator", "mean squared gradient by the input",
        "At real and at generated examples; growth at the generated ones announces divergence.",
        (_Line("r1", "at real"), _Line("r2", "at generated", "dot")), log=True,
    ),
    _Panel(
        "noise", "Adaptive noise", "strength",
        "Strength of the noise from 0 (none) to 1 (strongest), evenly in the logarithm of noise to signal.",
        (_Line("noise/level", "strength"),),
    ),
    _Panel(
        "signal", "Signal of the noise controller", "overfitting signal",
        "How surely the discriminator tells real from generated, −1 to 1: above the target the noise grows, below it "
        "shrinks.",
        (_Line("noise/signal", "signal"),),
    ),
)  # fmt: skip


def game_plots(results: Results) -> list[Plot]:
    """One plot for each quantity that the runs recorded."""
    return [plot for panel in _PANELS if (plot := _plot(results, panel))]


def _plot(results: Results, panel: _Panel) -> Plot | None:
    drawn = pens(results)
    found: dict[str, dict[_Line, list[Curve]]] = {}
    for method in results.methods:
        lines = {line: curves for line in panel.lines if (curves := gather(method, _reader(line)))}
        if lines:
            found[method.name] = lines
    if not found:
        return None
    curves = [curve for lines in found.values() for each in lines.values() for curve in each]
    positive = all(bool((curve.y[np.isfinite(curve.y)] > 0).all()) for curve in curves)
    figure = canvas("training step", panel.axis, log_y=panel.log and positive)
    several = len(panel.lines) > 1
    for name, lines in found.items():
        for line, each in lines.items():
            # Of several quantities in one plot the dash tells which, so that the colour stays the method's.
            pen = replace(drawn[name], dash=line.dash) if several else drawn[name]
            told = f"{line.words}<br>" if several else ""
            add_curves(figure, each, pen, f"{told}step %{{x}}<br>{panel.axis} %{{y:.4~g}}", ends=True)
    if panel.name == "signal" and len(targets := _targets(results)) == 1:
        figure.add_hline(y=targets.pop(), line={"color": _GREY, "width": 1.5, "dash": "dot"})
    keys = keys_of(drawn, list(found))
    if several:
        shown = [line for line in panel.lines if any(line in lines for lines in found.values())]
        keys = [replace(key, dash="solid") for key in keys] + [Key(line.words, _GREY, line.dash, "") for line in shown]
    alt = f"{panel.title} against training step for {', '.join(found)}."
    return finish(figure, f"game-{panel.name}", panel.title, panel.caption, alt, keys)


def _reader(line: _Line) -> object:
    def read(run: Run) -> tuple[Array, Array]:
        columns = run.evaluations if line.evaluated else run.metrics
        return columns["step"], columns[line.column]

    return read


def _targets(results: Results) -> set[float]:
    """The controller's target, where every run that has one has the same."""
    values = {run.config.get("noise_target") for run in results.runs if np.isfinite(run.metrics["noise/signal"]).any()}
    return {float(value) for value in values if isinstance(value, int | float)}
