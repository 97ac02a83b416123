"""What an adapter adds while it is trained: norms and intruder dimensions, the largest over its layers."""

import math
from dataclasses import dataclass

import numpy as np

from lsdr.report.figures.style import Plot, add_curves, canvas, finish, gather, keys_of, pens
from lsdr.report.load import Results, Run
from lsdr.report.plain import scalar
from lsdr.report.thin import Array

_START = "lora/"


@dataclass(frozen=True)
class _Panel:
    statistic: str
    title: str
    axis: str
    caption: str


_PANELS = (
    _Panel(
        "key_norm", "LoRA: norm", "largest Frobenius norm",
        "Frobenius norm of what the LoRA adds to a weight (key norm), the largest over layers.",
    ),
    _Panel(
        "sigma_max", "LoRA: largest singular value", "largest singular value",
        "Largest singular value of what the LoRA adds to a weight, the largest over layers.",
    ),
    _Panel(
        "intruder_dimensions", "LoRA: intruder dimensions", "most intruder dimensions",
        "How many of a layer's ten largest directions are near none of the base's, the most over layers.",
    ),
)  # fmt: skip


def adapter_plots(results: Results) -> list[Plot]:
    """One plot for each statistic that the monitor saw twice or more."""
    return [plot for panel in _PANELS if (plot := _plot(results, panel))]


def _plot(results: Results, panel: _Panel) -> Plot | None:
    found = {
        method.name: curves
        for method in results.methods
        if (curves := gather(method, lambda run: _largest(run, panel.statistic)))
    }
    if not found:
        return None
    figure = canvas("training step", panel.axis)
    figure.update_yaxes(rangemode="tozero")
    drawn = pens(results)
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], f"step %{{x}}<br>{panel.axis} %{{y:.4~g}}", ends=True)
    caption = (
        f"{panel.caption} Each layer counts with its newest value; the monitor's budget decides how often that is."
    )
    alt = f"{panel.axis} of the LoRA over its layers against training step for {', '.join(found)}."
    return finish(
        figure, f"adapter-{panel.statistic}".replace("_", "-"), panel.title, caption, alt, keys_of(drawn, list(found))
    )


def _largest(run: Run, statistic: str) -> tuple[Array, Array]:
    """Steps, and the largest of the layers' newest values: the monitor does not see every layer each time."""
    newest: dict[str, float] = {}
    curve: dict[float, float] = {}
    for record in run.monitored:
        step = scalar(record.get("step"))
        seen = {name: scalar(value) for name, value in record.items() if _is(name, statistic)}
        seen = {name: value for name, value in seen.items() if math.isfinite(value)}
        if seen and math.isfinite(step):
            newest |= seen
            curve[step] = max(newest.values())
    if len(curve) < 2:  # at the start a LoRA adds nothing, and that is no curve
        return np.empty(0), np.empty(0)
    return np.array(list(curve)), np.array(list(curve.values()))


def _is(name: str, statistic: str) -> bool:
    return name.startswith(_START) and name.endswith(f"/{statistic}")
