"""All eigenvalues of the denoiser as densities, one ridge a noise level."""

import numpy as np

from lsdr.report.figures.operator import levels_of
from lsdr.report.figures.style import DATA, Key, Plot, canvas, faint, finish, keys_of, pens
from lsdr.report.load import Method, Results
from lsdr.report.numbers import number
from lsdr.report.plain import mapping, scalar, vector
from lsdr.report.thin import Array, middle

_HEIGHT = 0.85  # of the room between two ridges


def density_plot(results: Results) -> Plot | None:
    """Ridges of every method at every noise level; of several seeds their median."""
    found = {method.name: ridges for method in results.methods if (ridges := _ridges(method))}
    if not found:
        return None
    sigmas = sorted({sigma for ridges in found.values() for sigma in ridges})
    figure, drawn = canvas("eigenvalue μ", "noise level σ"), pens(results)
    tallest = {
        sigma: max(float(ridges[sigma][1].max()) for ridges in found.values() if sigma in ridges) for sigma in sigmas
    }
    for name, ridges in found.items():
        pen = drawn[name]
        for place, sigma in reversed(list(enumerate(sigmas))):
            if sigma not in ridges:
                continue
            x, y = ridges[sigma]
            line = {"color": pen.colour, "width": 1.5, "dash": pen.dash}
            edge = {"mode": "lines", "legendgroup": pen.group, "hoverinfo": "skip"}
            if len(found) == 1:
                figure.add_scatter(x=x[[0, -1]], y=[place, place], line={"width": 0}, **edge)
            figure.add_scatter(
                x=x, y=place + _HEIGHT * y / tallest[sigma], line=line,
                fill="tonexty" if len(found) == 1 else "none", fillcolor=faint(pen.colour), **edge,
            )  # fmt: skip
    for ruler in (0.0, 1.0):
        figure.add_vline(x=ruler, line={"color": DATA, "width": 1, "dash": "dot"})
    figure.update_yaxes(
        tickvals=list(range(len(sigmas))), ticktext=[number(sigma, 2) for sigma in sigmas],
        range=[-0.15, len(sigmas) - 0.05],
    )  # fmt: skip
    caption = (
        "How many of the denoiser's eigenvalues lie where, estimated with random probes; every ridge is scaled to its "
        "own height. In noise the eigenvalues gather at 0; near the clean image they move towards 1. Left of 0 the "
        "best denoiser has none; right of 1 differences grow."
    )
    alt = f"Densities of eigenvalues at {len(sigmas)} noise levels for {', '.join(found)}, as ridges."
    keys = [*(keys_of(drawn, list(found)) if len(found) > 1 else []), Key("eigenvalues 0 and 1", DATA, "dot", "")]
    height = 110 + 44 * len(sigmas)
    return finish(figure, "operator-density", "Density of the eigenvalues", caption, alt, keys, height)


def _ridges(method: Method) -> dict[float, tuple[Array, Array]]:
    """Density by noise level, the median over seeds."""
    curves: dict[float, list[tuple[Array, Array]]] = {}
    for run in method.runs:
        for level in levels_of(run):
            about = mapping(level.get("density"))
            x, y = vector(about.get("value")), vector(about.get("density"))
            y = np.where(np.isfinite(y), y, 0.0)
            if len(x) == len(y) > 1 and np.isfinite(x).all() and (y > 0).any():
                curves.setdefault(float(f"{scalar(level['sigma']):.4g}"), []).append((x, y))
    ridges = {sigma: middle(seeds) if len(seeds) > 1 else seeds[0] for sigma, seeds in curves.items()}
    return {sigma: (x, np.nan_to_num(y)) for sigma, (x, y) in ridges.items() if (y > 0).any()}
