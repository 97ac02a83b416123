"""Modes of the data that samples cover: over the steps, and one by one."""

from typing import Any

import numpy as np

from lsdr.report.figures.style import DATA, Key, Plot, add_curves, canvas, finish, gather, keys_of, pens, safe
from lsdr.report.gan.coverage import modes_of_run, worst_run
from lsdr.report.load import Results, Run
from lsdr.report.plain import scalar, vector
from lsdr.report.thin import Array

_MOST_BARS = 60
_PANELS = (
    ("modes", "Modes captured", "modes with a sample",
     "Modes of the data with at least one sample at them; a run that loses modes again falls."),
    ("high_quality", "High-quality samples", "share of samples",
     "Share of the samples within three standard deviations of a mode, with the noise of training off."),
    ("reverse_kl", "Reverse KL", "reverse KL (nats)",
     "How unevenly the samples that lie at modes are spread over them; 0 is even."),
    ("precision", "Precision", "precision", "Share of the samples that lie among the data: how real they look."),
    ("recall", "Recall", "recall", "Share of the data that lie among the samples: how varied they are."),
    ("coverage", "Coverage", "coverage", "Share of the data’s neighbourhoods that hold a sample."),
)  # fmt: skip


def mode_plots(results: Results) -> list[Plot]:
    """What was measured of the samples as training went on, with a perfect sampler's value where it is known."""
    return [plot for panel in _PANELS if (plot := _over_steps(results, *panel))]


def _over_steps(results: Results, column: str, title: str, axis: str, caption: str) -> Plot | None:
    def read(run: Run) -> tuple[Array, Array]:
        return run.evaluations["step"], run.evaluations[column]

    found = {method.name: curves for method in results.methods if (curves := gather(method, read))}
    if not found:
        return None
    figure, drawn = canvas("training step", axis), pens(results)
    figure.update_yaxes(rangemode="tozero")
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], f"step %{{x}}<br>{axis} %{{y:.4~g}}", ends=True)
    keys = keys_of(drawn, list(found))
    total = max((len(modes["counts"]) for run in results.runs if (modes := modes_of_run(run))), default=0)
    if column == "modes" and total:
        figure.add_hline(y=total, line={"color": DATA, "width": 1.5, "dash": "dot"})
        keys.append(Key(f"all {total} modes", DATA, "dot", ""))
    alt = f"{title} against training step for {', '.join(found)}."
    return finish(figure, f"steps-{column}".replace("_", "-"), title, caption, alt, keys)


def histogram_plot(results: Results) -> Plot | None:
    """Share of the samples at each mode, of every method's worst seed."""
    found = {
        method.name: modes for method in results.methods if (run := worst_run(method)) and (modes := modes_of_run(run))
    }
    total = max((len(modes["counts"]) for modes in found.values()), default=0)
    if not total:
        return None
    many = total > _MOST_BARS
    figure = canvas("modes, the most frequent first" if many else "mode", "share of the samples", log_y=many)
    drawn = pens(results)
    for name, modes in found.items():
        counts = vector(modes["counts"])
        share = counts / max(scalar(modes.get("samples")), counts.sum(), 1)
        pen, shared = drawn[name], {"legendgroup": drawn[name].group, "name": safe(name)}
        if many:
            figure.add_scatter(
                x=np.arange(1, total + 1), y=_ranked(share), mode="lines",
                line={"color": pen.colour, "width": 2, "dash": pen.dash},
                hovertemplate="rank %{x}<br>share %{y:.4~g}", **shared,
            )  # fmt: skip
        else:
            figure.add_bar(
                x=np.arange(1, total + 1), y=share, marker={"color": pen.colour},
                hovertemplate="mode %{x}<br>share %{y:.4~g}", **shared,
            )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.25)
    figure.add_hline(y=1 / total, line={"color": DATA, "width": 1.5, "dash": "dot"})
    keys = [*keys_of(drawn, list(found)), Key("an even share", DATA, "dot", "")]
    caption = "Share of the samples at each mode"
    caption += "" if results.single else ", of each method’s worst seed"
    caption += ". What is missing up to 100 % lies at no mode." if _off(found) else "."
    alt = f"Share of the samples at each of {total} modes for {', '.join(found)}."
    return finish(figure, "mode-histogram", "Samples by mode", caption, alt, keys)


def _ranked(share: Array) -> Array:
    """From the largest down; a share of zero has no place on a logarithmic axis."""
    ordered = np.sort(share)[::-1]
    return np.where(ordered > 0, ordered, np.nan)


def _off(found: dict[str, dict[str, Any]]) -> bool:
    return any(float(vector(modes["counts"]).sum()) < scalar(modes.get("samples")) for modes in found.values())
