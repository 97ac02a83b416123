"""Stability: loss after short training by learning rate."""

import numpy as np

from lsdr.report.figures.style import DATA, Key, Plot, add_curves, canvas, finish, gather, keys_of, pens, safe
from lsdr.report.load import Results, Run
from lsdr.report.plain import mapping, scalar, sequence, vector
from lsdr.report.thin import Array


def lr_plot(results: Results) -> Plot | None:
    """Loss by learning rate, with the loss before training as a line; a diverged run has no loss."""
    found = {method.name: curves for method in results.methods if (curves := gather(method, _grid))}
    failed = {method.name: rates for method in results.methods if len(rates := _diverged(method.runs))}
    if not found and not failed:
        return None
    figure = canvas("learning rate", "loss after short training", log_x=True, log_y=True)
    drawn = pens(results)
    hover = "learning rate %{x:.3~g}<br>loss %{y:.4~g}"
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], hover)
    values = [curve.y[np.isfinite(curve.y)] for curves in found.values() for curve in curves]
    starts = [scalar(mapping(run.curves.get("lr_grid")).get("initial_loss")) for run in results.runs]
    starts = [start for start in starts if np.isfinite(start)]
    top = 1.4 * max([float(part.max()) for part in values] + starts, default=1.0)
    for place, (method, rates) in enumerate(failed.items()):
        pen = drawn[method]
        figure.add_scatter(
            x=rates, y=np.full(len(rates), top * 1.12**place), mode="markers", legendgroup=pen.group, name=safe(method),
            marker={"symbol": "x", "size": 9, "color": pen.colour},
            hovertemplate="learning rate %{x:.3~g}: diverged<extra></extra>",
        )  # fmt: skip
    keys = keys_of(drawn, [*found, *failed])
    if starts:
        figure.add_hline(y=float(np.median(starts)), line={"color": DATA, "width": 1.5, "dash": "dot"})
        keys.append(Key("loss before training", DATA, "dot", ""))
    caption = (
        "A stable learning rate ends below the loss before training. A cross at the top: at least one seed diverged "
        "there; thin lines are seeds, thick lines their median."
    )
    alt = f"Loss after short training against the learning rate for {', '.join(dict.fromkeys([*found, *failed]))}."
    return finish(figure, "lr-grid", "Loss by learning rate", caption, alt, keys)


def _grid(run: Run) -> tuple[Array, Array]:
    grid = mapping(run.curves.get("lr_grid"))
    rates, losses = vector(grid.get("lr")), vector(grid.get("loss"))
    diverged = _flags(grid.get("diverged"))
    for place, broke in enumerate(diverged[: len(losses)]):
        if broke:
            losses[place] = np.nan
    return rates, losses


def _diverged(runs: list[Run]) -> Array:
    found = []
    for run in runs:
        grid = mapping(run.curves.get("lr_grid"))
        rates, flags = vector(grid.get("lr")), _flags(grid.get("diverged"))
        found += [rate for rate, flag in zip(rates, flags, strict=False) if flag and np.isfinite(rate)]
    return np.array(sorted(set(found)), dtype=np.float64)


def _flags(value: object) -> list[bool]:
    return [bool(item) for item in sequence(value)]


def largest_stable(run: Run) -> float:
    """Largest learning rate of the grid up to which every one stays below the loss before training; NaN if unknown."""
    if "largest_stable_lr" in run.measures:
        return run.measures["largest_stable_lr"]
    grid = mapping(run.curves.get("lr_grid"))
    rates, losses = _grid(run)
    start = scalar(grid.get("initial_loss"))
    best = np.nan
    for rate, loss in sorted(zip(rates, losses, strict=False)):
        if not np.isfinite(loss) or loss > start:
            break
        best = float(rate)
    return float(best)
