"""Points in the plane: samples over the modes that they should lie at."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lsdr.report.figures.style import COLOURS, DATA, Key, Plot, canvas, finish, pens
from lsdr.report.gan.coverage import worst_run
from lsdr.report.load import Results, Run
from lsdr.report.numbers import count
from lsdr.report.plain import mapping, scalar, sequence, vector

Points = NDArray[np.float32]
_MOST = 1000
_RADIUS = 3.0  # standard deviations around a mode within which a sample is of high quality
_HEIGHT = 380


def point_plots(results: Results, notes: list[str]) -> list[Plot]:
    """The samples of each method's worst seed over the data's modes; none where examples are no points."""
    mixture = mapping(mapping(results.record.get("data")).get("mixture"))
    plots = []
    for place, method in enumerate(results.methods):
        run = worst_run(method) or next(iter(method.runs), None)
        samples = None if run is None else _samples(run, notes)
        if run is None or samples is None:
            continue
        several = len(method.runs) > 1
        title = f"{method.name}, seed {run.seed}: its worst of {len(method.runs)}" if several else method.name
        colour = pens(results)[method.name].colour
        plots.append(point_plot(samples, mixture, title, f"points-{place}", colour))
    return plots


def point_plot(
    points: Points, mixture: dict[str, Any], title: str, name: str, colour: str, what: str = "samples"
) -> Plot:
    """Points in the plane, and the circles within which a sample is of high quality.

    Args:
        points: Shape (n, 2); of more than two coordinates the first two are drawn.
        mixture: "means" and "std" of the data's modes; empty where they are not known.
        title: Heading.
        name: What the plot is called within its page.
        colour: The points'.
        what: What they are called.
    """
    figure = _plane()
    _dots(figure, points, colour, what, 4)
    keys = [Key(what, colour, "dot", what), *_modes(figure, mixture)]
    finite = points[np.isfinite(points).all(1)]
    caption = f"{count(min(len(finite), _MOST))} {what}"
    caption += f"; {count(len(points) - len(finite))} more are not finite." if len(finite) < len(points) else "."
    _frame(figure, _means(mixture), finite)
    return finish(figure, name, title, caption, f"Scatter plot of {what}: {title}.", keys, _HEIGHT)


def path_plot(paths: list[Points], mixture: dict[str, Any]) -> Plot | None:
    """Samples along paths between latents."""
    paths = [path for path in paths if len(path) > 1]
    if not paths:
        return None
    figure = _plane()
    for place, path in enumerate(paths):
        figure.add_scatter(
            x=path[:, 0], y=path[:, -1], mode="lines+markers", marker={"size": 4}, legendgroup=f"path{place}",
            line={"color": COLOURS[place % len(COLOURS)], "width": 1.5}, name=f"path {place + 1}",
            hovertemplate=f"path {place + 1}<br>(%{{x:.3~g}}, %{{y:.3~g}})<extra></extra>",
        )  # fmt: skip
    keys = [
        Key(f"path {place + 1}", COLOURS[place % len(COLOURS)], "solid", f"path{place}") for place in range(len(paths))
    ]
    keys += _modes(figure, mixture)
    _frame(figure, _means(mixture), np.concatenate(paths))
    caption = "Each path leads from one latent to another in even steps; long steps are leaps between modes."
    return finish(figure, "paths", "Between latents", caption, "Samples along paths between latents.", keys, _HEIGHT)


def _plane() -> Any:
    figure = canvas("", "")
    figure.update_xaxes(title=None)
    figure.update_yaxes(title=None, scaleanchor="x", scaleratio=1)
    return figure


def _modes(figure: Any, mixture: dict[str, Any]) -> list[Key]:
    """Draw the circles around the modes."""
    radius, means = _RADIUS * scalar(mixture.get("std")), _means(mixture)
    if not len(means) or not math.isfinite(radius):
        return []
    x, y = _circles(means, radius)
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": DATA, "width": 1}, hoverinfo="skip", legendgroup="modes", name="modes"
    )
    return [Key(f"{len(means)} modes, to {_RADIUS:.0f} standard deviations", DATA, "solid", "modes")]


def _dots(figure: Any, points: Points, colour: str, group: str, size: int) -> None:
    shown = points[np.isfinite(points).all(1)][:_MOST].astype(np.float32)
    y = shown[:, 1] if shown.shape[1] > 1 else np.zeros(len(shown), np.float32)
    figure.add_scatter(
        x=shown[:, 0], y=y, mode="markers", marker={"color": colour, "size": size, "opacity": 0.45},
        legendgroup=group, name=group, hovertemplate="(%{x:.3~g}, %{y:.3~g})<extra></extra>",
    )  # fmt: skip


def _frame(figure: Any, means: NDArray[np.float64], samples: Points) -> None:
    """Axes that show the modes and nearly all samples: one that has run away must not shrink the rest to a dot."""
    parts = [
        part for part in (means, np.quantile(samples, [0.01, 0.99], axis=0) if len(samples) else means) if len(part)
    ]
    if not parts:
        return
    corners = np.concatenate([part[:, :2] for part in parts])
    if len(means):
        middle, reach = means.mean(0)[:2], 2.5 * max(np.ptp(means[:, :2]), 1e-6)
        corners = np.clip(corners, middle - reach, middle + reach)
    low, high = corners.min(0), corners.max(0)
    margin = 0.08 * max(float((high - low).max()), 1e-6)
    figure.update_xaxes(range=[float(low[0]) - margin, float(high[0]) + margin])
    figure.update_yaxes(range=[float(low[-1]) - margin, float(high[-1]) + margin])


def _circles(means: NDArray[np.float64], radius: float) -> tuple[list[float | None], list[float | None]]:
    """All circles as one broken line."""
    turn = np.linspace(0, 2 * math.pi, 25)
    x: list[float | None] = []
    y: list[float | None] = []
    for mean in means:
        x += [*(mean[0] + radius * np.cos(turn)).tolist(), None]
        y += [*((mean[1] if len(mean) > 1 else 0.0) + radius * np.sin(turn)).tolist(), None]
    return x, y


def _means(mixture: dict[str, Any]) -> NDArray[np.float64]:
    rows = [vector(each) for each in sequence(mixture.get("means"))]
    sizes = {len(row) for row in rows}
    if len(sizes) != 1 or 0 in sizes or not all(np.isfinite(row).all() for row in rows):
        return np.empty((0, 2))
    return np.stack(rows)


def _samples(run: Run, notes: list[str]) -> Points | None:
    file = run.directory / "samples.safetensors"
    if not file.exists():
        return None
    try:
        samples = load_file(file).get("samples")
    except (SafetensorError, OSError, ValueError) as error:
        notes.append(f"{'/'.join(file.parts[-3:])} could not be read: {error}.")
        return None
    if samples is None or samples.ndim != 2 or not len(samples):
        return None  # images are shown as pictures
    found: Points = samples.astype(np.float32)
    return found
