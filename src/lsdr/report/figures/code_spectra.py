"""Pictures of the spectrum: of the codes, of two views' agreement, and layer by layer."""

from typing import Any

import numpy as np

from lsdr.report.figures.representation import TAN
from lsdr.report.figures.style import Curve, Key, Plot, add_curves, between, canvas, finish, keys_of, pens
from lsdr.report.load import Results
from lsdr.report.plain import scalar, vector
from lsdr.report.representation.files import Facts
from lsdr.report.thin import Array, middle

_ROUNDING = 1e-7
_FIRST, _LAST = "#56B4E9", "#D55E00"


def spectrum_plots(results: Results, every: dict[str, list[Facts]]) -> list[Plot]:
    """Eigenvalues and canonical correlations of the codes; eigenvalues and ranks of the layers."""
    found = [_eigenvalues(results, every), _canonical(results, every), *_layers(results, every)]
    return [plot for plot in found if plot]


def _eigenvalues(results: Results, every: dict[str, list[Facts]]) -> Plot | None:
    def read(facts: Facts) -> tuple[Array, Array]:
        return _ranked(facts.spectrum())

    before = [
        curve for runs in every.values() for each in runs if len((curve := _ranked(each.spectrum("codes@random")))[0])
    ]
    caption = (
        "Share of the codes’ variance along each principal direction, largest first: flat means many directions in "
        "use, a cliff that the codes have collapsed onto those before it."
    )
    return _curves(
        results, every, read, "code-spectrum", "Spectrum of the codes", ("rank", "share of variance"), caption,
        log=True, before=before,
    )  # fmt: skip


def _canonical(results: Results, every: dict[str, list[Facts]]) -> Plot | None:
    def read(facts: Facts) -> tuple[Array, Array]:
        values = np.sort(vector(facts.spectra.get("canonical")))[::-1]
        return np.arange(1.0, len(values) + 1), values

    caption = (
        "Correlation of two views’ codes along each ordered direction: how many of them a change of view leaves alone. "
        "At 1 nothing changes, at 0 the direction knows the view and not the example."
    )
    title = "Agreement of two views, direction by direction"
    return _curves(results, every, read, "canonical", title, ("ordered direction", "canonical correlation"), caption)


def _curves(
    results: Results,
    every: dict[str, list[Facts]],
    read: Any,
    name: str,
    title: str,
    axes: tuple[str, str],
    caption: str,
    *,
    log: bool = False,
    before: list[tuple[Array, Array]] | None = None,
    layers: int = 0,
) -> Plot | None:
    found = {
        method: curves
        for method, runs in every.items()
        if (curves := [Curve(facts.run, *pair) for facts in runs if len((pair := read(facts))[0])])
    }
    if not found:
        return None
    figure, drawn = canvas(*axes, log_x=log, log_y=log), pens(results)
    keys = keys_of(drawn, list(found))
    hover = f"{axes[0]} %{{x}}<br>{axes[1]} %{{y:.3~g}}"
    if before:
        x, y = middle(before)
        figure.add_scatter(
            x=x, y=y, mode="lines", legendgroup="before", name="before training", hovertemplate=hover,
            line={"color": TAN, "width": 2, "dash": "dashdot"},
        )  # fmt: skip
        keys.append(Key("before training", TAN, "dashdot", "before"))
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], hover)
    if layers:
        figure.update_xaxes(tickmode="linear", tick0=1, dtick=-(-layers // 12))
        figure.update_yaxes(rangemode="tozero", tickformat=".0%")
    alt = f"{title}: {axes[1]} by {axes[0]} for {', '.join(found)}."
    return finish(figure, name, title, caption, alt, keys)


def _ranked(about: dict[str, Any]) -> tuple[Array, Array]:
    """Shares of the variance, largest first; what rounding leaves of zeros would take up the whole axis."""
    values = np.sort(vector(about.get("values")))[::-1]
    values = values[values > _ROUNDING * values[0]] if len(values) else values
    return np.arange(1.0, len(values) + 1), values / values.sum() if len(values) else values


def _layers(results: Results, every: dict[str, list[Facts]]) -> list[Plot | None]:
    """Of a lone run every layer's eigenvalues; of all the rank by depth."""
    plots: list[Plot | None] = []
    if results.single:
        facts = next(iter(every.values()))[0]
        plots.append(_layer_eigenvalues(facts))
    names = list(dict.fromkeys(name for runs in every.values() for facts in runs for name in layer_names(facts)))

    def read(facts: Facts) -> tuple[Array, Array]:
        known = {str(layer.get("name")): _rank(layer) for layer in facts.layers()}
        return np.arange(1.0, len(names) + 1), np.array([known.get(name, np.nan) for name in names])

    if len(names) > 1:
        caption = (
            "Directions that each layer’s features use, as a share of those it has (effective rank over width), from "
            "the input to the codes."
        )
        axes = ("layer", "share of directions in use")
        plot = _curves(
            results, every, read, "layer-ranks", "Directions in use by depth", axes, caption, layers=len(names)
        )
        plots.append(plot)
    return plots


def layer_names(facts: Facts) -> list[str]:
    """The layers that were measured, in order of depth."""
    return [str(layer.get("name")) for layer in facts.layers()]


def _rank(layer: dict[str, Any]) -> float:
    width = len(vector(layer.get("values")))
    rank = scalar(layer.get("effective_rank", layer.get("rank_me")))
    return rank / width if width else np.nan


def _layer_eigenvalues(facts: Facts) -> Plot | None:
    layers = [(name, *_ranked(layer)) for name, layer in zip(layer_names(facts), facts.layers(), strict=True)]
    layers = [layer for layer in layers if len(layer[1])]
    if not layers:
        return None
    figure, keys = canvas("rank", "share of variance", log_x=True, log_y=True), []
    for place, (name, x, y) in enumerate(layers):
        colour = between(_FIRST, _LAST, place / max(len(layers) - 1, 1))
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": colour, "width": 2}, legendgroup=f"layer{place}", name=name,
            hovertemplate="rank %{x}<br>share of variance %{y:.3~g}",
        )  # fmt: skip
        keys.append(Key(name, colour, "solid", f"layer{place}"))
    caption = (
        "Share of each layer’s variance along its principal directions; blue is near the input, orange near the codes."
    )
    alt = f"Eigenvalues of {len(layers)} layers by rank, both axes logarithmic."
    return finish(figure, "layer-spectra", "Spectrum of every layer", caption, alt, keys)
