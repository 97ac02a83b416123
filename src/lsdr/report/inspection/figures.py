"""Statistics of the layers over depth: one point a layer, coloured by what kind of layer it is."""

import math
from collections.abc import Callable
from typing import Any

from lsdr.report.figures.style import COLOURS, Key, Plot, canvas, finish, safe
from lsdr.report.plain import mapping, scalar

_PANELS = (
    ("sigma_max", "Largest singular value", "σ max", True,
     "How much the weight, as a matrix, can amplify. Look for layers that stand above the others of their colour."),
    ("sigma_over_target", "Largest singular value against its natural scale", "σ max / √(fan out / fan in)", True,
     "The scale at which features of a wide layer keep their size (spectral condition): near 1 after a good start."),
    ("stable_rank", "Stable rank", "stable rank", True,
     "Sum of squared singular values over the largest square: low means that few directions carry the weight."),
    ("effective_rank", "Effective rank", "effective rank", True,
     "Exponential of the entropy of the singular values: how many directions are in use."),
    ("power_law_exponent", "Exponent of the tail", "α", False,
     "Of the squared singular values. It correlates with training at best and depends on the shape: no alarm is "
     "built on it."),
    ("marchenko_pastur_outliers", "Directions above noise", "values above the edge", False,
     "Singular values above the Marchenko-Pastur edge of a random matrix with as large entries."),
)  # fmt: skip
_BASE_PANELS = (
    ("relative", "How far each layer moved", "‖Δ‖ / ‖base‖", True, "Norm of the change over the norm of the base."),
    ("rank", "Effective rank of the change", "effective rank of Δ", True, "How many directions the change has."),
    ("intruder_dimensions", "Intruder dimensions", "count", False,
     "Top directions of the fine-tuned weight that are near none of the base's."),
)  # fmt: skip


def layer_plots(layers: list[dict[str, Any]]) -> list[Plot]:
    """One plot for each statistic that any layer has."""
    return [plot for panel in _PANELS if (plot := _over_depth(layers, lambda layer: layer, *panel))]


def base_plots(layers: list[dict[str, Any]]) -> list[Plot]:
    """One plot for each statistic of the change against a base."""
    return [plot for panel in _BASE_PANELS if (plot := _over_depth(layers, _delta_of, *panel))]


def _delta_of(layer: dict[str, Any]) -> dict[str, Any]:
    return mapping(layer.get("delta"))


def _over_depth(
    layers: list[dict[str, Any]], part: Callable[[dict[str, Any]], dict[str, Any]], statistic: str, title: str,
    axis: str, log: bool, caption: str,
) -> Plot | None:  # fmt: skip
    points = [
        (place, layer, value)
        for place, layer in enumerate(layers, start=1)
        if math.isfinite(value := _value(part(layer).get(statistic))) and (value > 0 or not log)
    ]
    if not points:
        return None
    kinds = list(dict.fromkeys(str(layer.get("kind") or "layer") for _, layer, _ in points))
    figure = canvas("layer, in model order", axis, log_y=log and _wide([value for _, _, value in points]))
    for number, kind in enumerate(kinds):
        chosen = [point for point in points if str(point[1].get("kind") or "layer") == kind]
        colour = COLOURS[number % len(COLOURS)]
        x, y = _whiskers(chosen) if statistic == "sigma_max" else ([], [])
        if x:
            figure.add_scatter(
                x=x, y=y, mode="lines", line={"color": colour, "width": 1}, opacity=0.35, legendgroup=f"k{number}",
                hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=[place for place, _, _ in chosen], y=[value for _, _, value in chosen], mode="markers",
            marker={"color": colour, "size": 7, "opacity": 0.8},
            text=[safe(layer["name"]) for _, layer, _ in chosen], legendgroup=f"k{number}", name=safe(kind),
            hovertemplate=f"%{{text}}<br>{axis} %{{y:.4~g}}<extra></extra>",
        )  # fmt: skip
    keys = [
        Key(kind, COLOURS[number % len(COLOURS)], "solid", f"k{number}" if len(kinds) > 1 else "")
        for number, kind in enumerate(kinds)
    ]
    alt = f"{title} of {len(points)} layers against depth."
    if statistic == "sigma_max" and any("convolution_upper" in layer for _, layer, _ in points):
        caption += " Whiskers reach up to what the norm of the convolution itself can be."
    return finish(figure, statistic.replace("_", "-"), title, caption, alt, keys)


def _whiskers(points: list[tuple[int, dict[str, Any], float]]) -> tuple[list[Any], list[Any]]:
    """Lines from the flattened kernel's norm up to the largest that the convolution's can be."""
    x: list[Any] = []
    y: list[Any] = []
    for place, layer, value in points:
        upper = scalar(layer.get("convolution_upper"))
        if upper > value:
            x += [place, place, None]
            y += [value, upper, None]
    return x, y


def _value(value: Any) -> float:
    if isinstance(value, dict):
        value = value.get("exponent")
    return float(len(value)) if isinstance(value, list) else scalar(value)


def _wide(values: list[float]) -> bool:
    return min(values) > 0 and max(values) > 5 * min(values)
