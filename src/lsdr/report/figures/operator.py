"""The spectrum of the denoising step over noise levels: of one run every rank, of several methods the largest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsdr.report.figures.marks import add_marks, marks_key
from lsdr.report.figures.style import (
    DATA,
    Curve,
    Key,
    Pen,
    Plot,
    add_band,
    add_curves,
    between,
    canvas,
    finish,
    gather,
    keys_of,
    pens,
)
from lsdr.report.load import Results, Run
from lsdr.report.operator.levels import Level, column, kept, levels_in, ranks
from lsdr.report.thin import Array

_X = "noise level σ"
_FIRST, _LAST = "#D55E00", "#0072B2"
Reader = Callable[[list[Level], str], Array]


@dataclass(frozen=True)
class _Panel:
    """One quantity with a value for each rank at each noise level."""

    name: str
    title: str
    axis: str
    read: Reader
    caption: str
    log_y: bool = False
    ranked: bool = True


_PANELS = (
    _Panel("operator-eigenvalues", "Eigenvalues of the denoiser by noise level", "eigenvalue μ",
           lambda levels, _: ranks(levels, "eigenvalues", "median"),
           "An eigenvalue is the share of a change in the noisy image, along its direction, that the estimate keeps: "
           "near 0 the direction counts as noise, near 1 as image; above 1 differences grow, as where images are being "
           "told apart."),
    _Panel("operator-gains", "Gain of a sampler's step", "gain g", lambda levels, _: ranks(levels, "gains"),
           "How much of a small difference is left after the step from σ to the next level. Products of gains must "
           "come to the data's spread: gains that are too small blur. The next level is the sampler's."),
    _Panel("operator-time-scales", "Time scales", "τ in units of ln σ", lambda levels, _: _times(levels),
           "τ = 1/(1−μ): by how much ln σ falls while a difference along the direction shrinks by e. The larger the "
           "eigenvalue the slower; a direction whose τ exceeds what ln σ has left to fall is settled.", log_y=True),
    _Panel("operator-singular-values", "Singular values of the denoiser", "singular value",
           lambda levels, _: ranks(levels, "singular_values"),
           "How much the estimate stretches a small difference at most. The best denoiser's are its eigenvalues; what "
           "lies above those is the network's departure from symmetry."),
    _Panel("operator-asymmetry", "Departure from symmetry", "‖J − Jᵀ‖ / 2‖J‖",
           lambda levels, _: column(levels, "asymmetry")[:, None],
           "0 for the best denoiser, whose Jacobian is a covariance over σ²; 1 for a Jacobian that only rotates. What "
           "is above 0 is the network's error.", ranked=False),
    _Panel("operator-smallest", "Smallest eigenvalue", "smallest eigenvalue",
           lambda levels, _: column(levels, "smallest")[:, None],
           "A covariance has no negative eigenvalue: what lies below the dotted line is the network's error.",
           ranked=False),
)  # fmt: skip


def operator_plots(results: Results) -> list[Plot]:
    """One plot for each quantity that any run recorded at two noise levels or more."""
    return [plot for panel in _PANELS if (plot := _plot(results, panel))]


def levels_of(run: Run) -> list[Level]:
    """What a run recorded of its denoising step, the cleanest level first."""
    return levels_in(run.curves.get("operator"))


def _plot(results: Results, panel: _Panel) -> Plot | None:
    def largest(run: Run) -> tuple[Array, Array]:
        levels = levels_of(run)
        table = _drawable(panel, levels, run)
        return column(levels, "sigma"), table[:, 0] if table.shape[1] else np.full(len(levels), np.nan)

    found = {method.name: curves for method in results.methods if (curves := gather(method, largest))}
    if not found:
        return None
    figure = canvas(_X, panel.axis, log_x=True, log_y=panel.log_y)
    # The first run stands for the data: the lines of what should be are alike in all.
    run = next(iter(found.values()))[0].run
    keys = _yardsticks(figure, panel, run, results.single)
    caption = panel.caption
    if results.single:
        keys = [*_every_rank(figure, panel, run), *keys]
    else:
        keys = [*_every_method(figure, panel, results, found), *keys]
        caption += " Of each run the largest." if panel.ranked else ""
        several = any(len(curves) > 1 for curves in found.values())
        caption += " Thin lines are seeds, thick lines their median." if several else ""
    if panel.name == "operator-time-scales":
        keys += _growing(figure, results)
    if panel.name == "operator-asymmetry":
        figure.update_yaxes(rangemode="tozero")
    alt = f"{panel.title}: {panel.axis} against the noise level for {', '.join(found)}."
    return finish(figure, panel.name, panel.title, caption, alt, keys)


def _drawable(panel: _Panel, levels: list[Level], run: Run) -> Array:
    table = panel.read(levels, _frame(run))
    return np.where(table > 0, table, np.nan) if panel.log_y else table


def _every_method(figure: Any, panel: _Panel, results: Results, found: dict[str, list[Curve]]) -> list[Key]:
    """The largest of every run, and the median over seeds."""
    return add_methods(figure, pens(results), found, f"σ %{{x:.3~g}}<br>{panel.axis} %{{y:.4~g}}")


def add_methods(figure: Any, drawn: Mapping[str, Pen], found: Mapping[str, list[Curve]], hover: str) -> list[Key]:
    """Every method's runs and their median; of a method with gaps the median alone."""
    for method, curves in found.items():
        gapless = all(np.isfinite(curve.y).all() for curve in curves)
        add_curves(figure, curves if gapless else [_reached(curves)], drawn[method], hover)
    return keys_of(dict(drawn), list(found))


def _reached(curves: list[Curve]) -> Curve:
    """The median where more than half of the seeds have a value: a line must not run through a level without."""
    levels = np.unique(np.concatenate([curve.x for curve in curves]))
    values = np.full(len(levels), np.nan)
    for place, level in enumerate(levels):
        known = [y for curve in curves for y in curve.y[curve.x == level] if np.isfinite(y)]
        if 2 * len(known) > len(curves):
            values[place] = np.median(known)
    return Curve(curves[0].run, levels, values)


def _every_rank(figure: Any, panel: _Panel, run: Run) -> list[Key]:
    """Every rank as a line, from the largest, warm, to the smallest shown, cool; the largest with its band."""
    levels = levels_of(run)
    sigma, table = column(levels, "sigma"), _drawable(panel, levels, run)
    if panel.name == "operator-eigenvalues":
        low, high = ranks(levels, "eigenvalues", "low"), ranks(levels, "eigenvalues", "high")
        if low.shape[1] and high.shape[1]:
            add_band(figure, sigma, low[:, 0], high[:, 0], _FIRST, "rank0")
    count = table.shape[1]
    shades = [between(_FIRST, _LAST, place / max(count - 1, 1)) for place in range(count)]
    for place in reversed(range(count)):  # the largest on top
        figure.add_scatter(
            x=sigma, y=table[:, place], mode="lines+markers", legendgroup=f"rank{place}",
            line={"color": shades[place], "width": 2.5 if place == 0 else 1.5}, marker={"size": 5 if place == 0 else 3},
            hovertemplate=f"σ %{{x:.3~g}}<br>{panel.axis} %{{y:.4~g}}<extra>{_rank(place, count)}</extra>",
        )  # fmt: skip
    if count == 1:
        return []
    band = ", with the 10–90 % band over images" if panel.name == "operator-eigenvalues" else ""
    last = f"and the next, down to number {count}" if count > 2 else "and the second"
    return [Key(f"largest{band}", shades[0], "solid", "rank0"), Key(last, shades[-1], "solid", "")]


def _rank(place: int, count: int) -> str:
    return "" if count == 1 else "largest" if place == 0 else f"number {place + 1}"


def _yardsticks(figure: Any, panel: _Panel, run: Run, single: bool) -> list[Key]:
    """What there should be, where that is known: drawn in the data's colour."""
    levels = levels_of(run)
    sigma = column(levels, "sigma")
    if panel.name == "operator-eigenvalues":
        gaussian = ranks(levels, "gaussian")
        if gaussian.shape[1] and np.isfinite(gaussian).any():
            for place in {0, gaussian.shape[1] - 1} if single else {0}:
                _dotted(figure, sigma, gaussian[:, place], "Gaussian data")
            which = "largest and last" if single and gaussian.shape[1] > 1 else "largest"
            return [Key(f"of Gaussian data with this covariance, {which}", DATA, "dot", "")]
    if panel.name == "operator-gains":
        noise, signal = kept(levels, _frame(run))
        _dotted(figure, sigma, noise, "pure noise")
        _dotted(figure, sigma, signal, "pure image")
        return [Key("of pure noise (below) and pure image (above)", DATA, "dot", "")]
    if panel.name == "operator-smallest":
        figure.add_hline(y=0, line={"color": DATA, "width": 1.5, "dash": "dot"})
    return []


def _dotted(figure: Any, x: Array, y: Array, name: str) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": DATA, "width": 1.5, "dash": "dot"}, name=name,
        hovertemplate=f"σ %{{x:.3~g}}<br>%{{y:.4~g}}<extra>{name}</extra>",
    )  # fmt: skip


def _times(levels: Sequence[Level]) -> Array:
    """Time scales; a negative one is that of a direction along which differences grow, and is drawn as that."""
    table = ranks(levels, "time_scales")
    return np.where(table > 0, table, np.nan)


def _growing(figure: Any, results: Results) -> list[Key]:
    """Triangles above the levels where in most runs the largest eigenvalue is 1 or more: differences grow."""

    def grows(run: Run) -> list[bool]:
        return [bool((row[:1] >= 1).any()) for row in ranks(levels_of(run), "eigenvalues", "median")]

    return add_levels_marked(
        figure, results, grows, "the largest eigenvalue is above 1, differences grow",
        pen=Pen(_FIRST, "solid", "growing") if results.single else None, above=True,
    )  # fmt: skip


def add_levels_marked(
    figure: Any, results: Results, marked: Callable[[Run], list[bool]], told: str, *, pen: Pen | None, above: bool
) -> list[Key]:
    """Triangles at the levels that are marked in most runs of a method; without a pen in the methods' colours."""
    drawn, marks = pens(results), []
    for method in results.methods:
        seen: dict[float, list[bool]] = {}
        for run in method.runs:
            for level, yes in zip(levels_of(run), marked(run), strict=True):
                seen.setdefault(float(level["sigma"]), []).append(yes)
        places = np.array([sigma for sigma, votes in seen.items() if 2 * sum(votes) > len(votes)])
        marks.append((pen or drawn[method.name], places))
    if not any(len(places) for _, places in marks):
        return []
    add_marks(figure, marks, f"σ %{{x:.3~g}}: {told}<extra></extra>", above=above)
    return [marks_key(told, pen, above=above)]


def _frame(run: Run) -> str:
    return str(run.curves.get("operator_frame") or "exploding")
