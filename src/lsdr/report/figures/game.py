"""The game of a generator and a discriminator over its steps: losses, outputs, gradients, noise."""

import numpy as np

from lsdr.report.figures.panels import Line, Panel, panel_plot
from lsdr.report.figures.style import Plot
from lsdr.report.load import Results

_PANELS = (
    Panel(
        "discriminator-loss", "Discriminator’s loss", "loss",
        "Without penalties. Near zero the discriminator tells real from generated without error.",
        (Line("discriminator/loss", "loss"),),
    ),
    Panel(
        "generator-loss", "Generator’s loss", "loss",
        "It need not fall: the discriminator moves too. What the samples are worth is shown above.",
        (Line("generator/loss", "loss"),),
    ),
    Panel(
        "logits", "Output of the discriminator", "mean output",
        "Higher means more real. Far apart: it tells all; held-out below real: it knows its training examples by "
        "heart.",
        (Line("logits/real", "real"), Line("logits/fake", "generated", "dot"),
         Line("logits_heldout", "real, held out", "dash", evaluated=True)),
    ),
    Panel(
        "discriminator-gradient", "Gradient norm of the discriminator", "gradient norm",
        "Norm of the whole gradient by its weights before clipping.",
        (Line("discriminator/grad_norm", "gradient norm"),), log=True,
    ),
    Panel(
        "generator-gradient", "Gradient norm of the generator", "gradient norm",
        "The same of the generator: where it vanishes the generator no longer learns, where it explodes the game "
        "breaks down.",
        (Line("generator/grad_norm", "gradient norm"),), log=True,
    ),
    Panel(
        "slope", "Slope of the discriminator", "mean squared gradient by the input",
        "At real and at generated examples; growth at the generated ones announces divergence.",
        (Line("r1", "at real"), Line("r2", "at generated", "dot")), log=True,
    ),
    Panel(
        "noise", "Adaptive noise", "strength",
        "Strength of the noise from 0 (none) to 1 (strongest), evenly in the logarithm of noise to signal.",
        (Line("noise/level", "strength"),),
    ),
    Panel(
        "signal", "Signal of the noise controller", "overfitting signal",
        "How surely the discriminator tells real from generated, −1 to 1: above the target the noise grows, below it "
        "shrinks.",
        (Line("noise/signal", "signal"),),
    ),
)  # fmt: skip


def game_plots(results: Results) -> list[Plot]:
    """One plot for each quantity that the runs recorded."""
    targets = _targets(results)
    levels = {"signal": targets.pop()} if len(targets) == 1 else {}
    found = [panel_plot(results, panel, "game", levels.get(panel.name)) for panel in _PANELS]
    return [plot for plot in found if plot]


def _targets(results: Results) -> set[float]:
    """The controller's target, where every run that has one has the same."""
    values = {run.config.get("noise_target") for run in results.runs if np.isfinite(run.metrics["noise/signal"]).any()}
    return {float(value) for value in values if isinstance(value, int | float)}
