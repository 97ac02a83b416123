"""Spectra of layers over depth: of weights and of features, at the start and at the end of training."""

from typing import Any

import numpy as np

from lsdr.report.figures.style import Key, Plot, add_curves, canvas, finish, gather, keys_of, pens, safe
from lsdr.report.load import Results, Run
from lsdr.report.plain import mapping, scalar, vector
from lsdr.report.thin import Array, middle

_PANELS = {
    "weights": (
        ("sigma_max", "Weights: largest singular value", "largest singular value", "How much a layer can amplify."),
        ("stable_rank", "Weights: stable rank", "stable rank",
         "Sum of squared singular values over the largest squared; low means that few directions carry the weight."),
        ("effective_rank", "Weights: effective rank", "effective rank",
         "Exponential of the entropy of the singular values; how many directions are in use."),
    ),
    "features": (
        ("effective_rank", "Features: effective rank", "effective rank",
         "How many directions the layer's outputs use."),
        ("mean_abs_correlation", "Features: correlation", "mean |correlation|",
         "Mean absolute correlation between channels of the layer's output; 0 means uncorrelated."),
        ("participation_ratio", "Features: participation ratio", "participation ratio",
         "Squared sum of the eigenvalues of the features' covariance over the sum of their squares."),
    ),
}  # fmt: skip
_STAGES = ("down_blocks", "mid_block", "up_blocks", "conv_norm_out", "conv_out")


def layer_plots(results: Results, kind: str) -> list[Plot]:
    """One plot for each statistic recorded of "weights" or "features"."""
    return [plot for panel in _PANELS[kind] if (plot := _over_depth(results, kind, *panel))]


def _over_depth(results: Results, kind: str, statistic: str, title: str, axis: str, caption: str) -> Plot | None:
    names = layer_names(results, kind)
    depth = np.arange(1.0, len(names) + 1)

    def at(place: int) -> Any:
        return lambda run: (depth, _row(run, kind, statistic, names, place))

    ends = {method.name: curves for method in results.methods if (curves := gather(method, at(-1)))}
    if not ends:
        return None
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curves in ends.values() for curve in curves])
    few = len(names) <= 3
    wide = bool(values.min() > 0 and values.max() > 20 * values.min())
    figure = canvas("layer, in model order", axis, log_y=wide)
    keys, drawn = [], pens(results)
    labels = [safe(name) for name in names]
    for method in results.methods:
        if method.name not in ends:
            continue
        pen = drawn[method.name]
        starts = gather(method, at(0)) if any(len(_records(run, kind)) > 1 for run in method.runs) else []
        if starts and len(names) > 1:
            x, y = middle([(curve.x, curve.y) for curve in starts])
            figure.add_scatter(
                x=x, y=y, mode="lines", line={"color": pen.colour, "width": 1.5, "dash": "dot"}, legendgroup=pen.group,
                name=f"{safe(method.name)}, first record", text=[labels[int(place) - 1] for place in x],
                hovertemplate=f"%{{text}}<br>{axis} %{{y:.3~g}}",
            )  # fmt: skip
            keys = [Key("first record", "#6b7683", "dot", "")]
        before = len(figure.data)
        add_curves(figure, ends[method.name], pen, f"%{{text}}<br>{axis} %{{y:.3~g}}")
        for trace in figure.data[before:]:
            trace.text = [labels[int(place) - 1] for place in trace.x]
            trace.mode = "lines+markers" if few else trace.mode
    if few:
        figure.update_xaxes(
            tickvals=depth, ticktext=[_stacked(label) for label in labels], tickangle=0, range=[0.5, len(names) + 0.5]
        )
    if kind == "weights" and any(run.config.get("tune") == "lora" for run in results.runs):
        caption += " Each layer's is that of what the LoRA adds to its weight."
    if not few:
        caption += " Point at a value for its layer; the list below names them all."
    alt = f"{title} against depth in the model for {', '.join(ends)}, {len(names)} layers."
    return finish(
        figure, f"{kind}-{statistic}".replace("_", "-"), title, caption, alt, [*keys_of(drawn, list(ends)), *keys]
    )


def _stacked(name: str) -> str:
    """A layer's name in short lines, for under an axis."""
    lines = [""]
    for part in name.split("."):
        if lines[-1] and len(lines[-1]) + len(part) > 11:
            lines.append("")
        lines[-1] += f".{part}" if lines[-1] else part
    return "<br>".join(lines[-3:])


def layer_names(results: Results, kind: str) -> list[str]:
    """Layers in the order in which data passes them."""
    names: dict[str, None] = {}
    for run in results.runs:
        for record in _records(run, kind)[-1:]:
            names |= dict.fromkeys(mapping(record.get("layers")))
    return sorted(names, key=_stage)


def _stage(name: str) -> int:
    """Where in a U-Net a layer comes: diffusers registers the way up before the middle. Others keep their order."""
    return next((place for place, part in enumerate(_STAGES, start=1) if name.startswith(part)), 0)


def _records(run: Run, kind: str) -> list[dict[str, Any]]:
    """The records of a kind up to the planned steps: what comes after them is not at equal steps."""
    return [each for each in run.spectra if each.get("kind") == kind and not scalar(each.get("step")) > run.steps]


def _row(run: Run, kind: str, statistic: str, names: list[str], place: int) -> Array:
    records = _records(run, kind)
    layers = mapping(records[place].get("layers")) if records else {}
    return np.array([scalar(mapping(layers.get(name)).get(statistic)) for name in names], dtype=np.float64)


def eigenvalue_plots(results: Results, most: int = 3) -> list[Plot]:
    """Eigenvalues by rank of the features of `most` layers, from the first to the last, at the end of training."""
    plots = []
    names = layer_names(results, "features")
    chosen = sorted({round(place) for place in np.linspace(0, len(names) - 1, most)}) if names else []
    for place, layer in ((place, names[place]) for place in chosen):
        found = {method.name: curves for method in results.methods if (curves := gather(method, _eigenvalues(layer)))}
        if not found:
            continue
        figure, drawn = canvas("rank", "eigenvalue", log_x=True, log_y=True), pens(results)
        for method, curves in found.items():
            add_curves(figure, curves, drawn[method], "rank %{x}<br>eigenvalue %{y:.3~g}")
        caption = (
            "Eigenvalues of the covariance of the layer's outputs, largest first: flat means many directions in use."
        )
        alt = f"Eigenvalues of the features of {layer} by rank for {', '.join(found)}, both axes logarithmic."
        title = f"Feature spectrum of {layer}"
        keys = keys_of(drawn, list(found))
        plots.append(finish(figure, f"eigenvalues-{place}", title, caption, alt, keys))
    return plots


def _eigenvalues(layer: str) -> Any:
    def read(run: Run) -> tuple[Array, Array]:
        records = _records(run, "features")
        layers = mapping(records[-1].get("layers")) if records else {}
        values = vector(mapping(layers.get(layer)).get("values"))
        values = np.sort(values[values > 0])[::-1]
        return np.arange(1.0, len(values) + 1), values

    return read
