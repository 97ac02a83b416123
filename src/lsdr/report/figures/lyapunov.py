"""Finite-time Lyapunov exponents of the sampler."""

import numpy as np

from lsdr.report.figures.style import COLOURS, DATA, Plot, canvas, finish
from lsdr.report.load import Results
from lsdr.report.numbers import number, signed
from lsdr.report.plain import mapping, scalar, vector


def lyapunov_plot(results: Results) -> Plot | None:
    """The exponents of a single run by rank; where runs are compared, the measures have the largest."""
    about = mapping(results.runs[0].curves.get("lyapunov")) if results.single and results.runs else {}
    values = vector(about.get("exponents"))
    if not np.isfinite(values).any():
        return None
    rank = np.arange(1.0, len(values) + 1)
    figure = canvas("rank", "exponent (nats a step)")
    figure.add_bar(x=rank, y=values, width=0.5, marker={"color": [COLOURS[int(value > 0)] for value in values]},
                   hovertemplate="number %{x}: %{y:.4~g}<extra></extra>")  # fmt: skip
    figure.add_hline(y=0, line={"color": DATA, "width": 1})
    figure.update_xaxes(tickvals=rank, range=[0.4, len(values) + 0.6])
    steps, residual = scalar(about.get("steps")), scalar(about.get("residual"))
    caption = (
        "How fast the sampler as a whole lets the fastest differences between two starts grow, above zero, or shrink, "
        "below it. Lower bounds"
    )
    caption += f", converged to {number(residual, 2)}." if np.isfinite(residual) else "."
    if np.isfinite(steps) and np.isfinite(values[0]):
        grown = float(np.exp(min(steps * values[0], 300.0)))
        caption += (
            f" Over {steps:.0f} steps the largest, {signed(float(values[0]))}, comes to a factor of {number(grown)}."
        )
    alt = f"Bars of the {len(values)} leading Lyapunov exponents."
    return finish(figure, "operator-lyapunov", "Lyapunov exponents of the sampler", caption, alt, [])
