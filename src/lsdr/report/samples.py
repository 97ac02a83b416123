"""Sample grids of every method side by side, beside the data's."""

import re
from dataclasses import dataclass
from pathlib import Path

from lsdr.report.images import Picture, picture
from lsdr.report.load import Results, Run

_MOST_SEEDS = 5
_MOST_STEPS = 4


@dataclass(frozen=True)
class Row:
    """Pictures to compare with one another."""

    title: str
    pictures: list[Picture]


def final_samples(results: Results, notes: list[str]) -> list[Row]:
    """For each seed the data's grid and each method's last one; the same seed means the same noise."""
    data = picture(results.directory / "data.png", "real images", "Grid of real images from the data.", notes)
    rows = []
    seeds = list(dict.fromkeys(run.seed for run in results.runs))
    for seed in seeds[:_MOST_SEEDS]:
        found = [_last(run, notes) for run in results.runs if run.seed == seed]
        pictures = [each for each in found if each]
        if pictures:
            rows.append(Row("" if seed is None else f"Seed {seed}", ([data] if data else []) + pictures))
    if not rows and data:
        rows.append(Row("", [data]))
    if len(seeds) > _MOST_SEEDS:
        notes.append(f"Samples of {len(seeds) - _MOST_SEEDS} more seeds are in the run directory, not in this report.")
    return rows


def progress(results: Results, notes: list[str]) -> list[Row]:
    """How the samples of the first seed changed in training, method by method."""
    rows = []
    for run in (method.runs[0] for method in results.methods if method.runs):
        steps = _steps(run)
        kept = steps if len(steps) <= _MOST_STEPS else [steps[i * (len(steps) - 1) // 3] for i in range(_MOST_STEPS)]
        found = [picture(path, f"step {step}", f"Samples of {run.name} at step {step}.", notes) for step, path in kept]
        if pictures := [each for each in found if each]:
            rows.append(Row(run.name, pictures))
    return rows


def _last(run: Run, notes: list[str]) -> Picture | None:
    """The final grid, or, of a run that broke down, the last one there is."""
    final = run.directory / "samples" / "final.png"
    if final.exists():
        return picture(final, run.method, f"Samples of {run.name} at the end of training.", notes)
    steps = _steps(run)
    if not steps:
        return None
    step, path = steps[-1]
    return picture(path, f"{run.method}, {run.state}: step {step}", f"Samples of {run.name} at step {step}.", notes)


def _steps(run: Run) -> list[tuple[int, Path]]:
    """The grids drawn during training, in order."""
    found = [(re.fullmatch(r"step-(\d+)", path.stem), path) for path in run.directory.glob("samples/step-*.png")]
    return sorted((int(match[1]), path) for match, path in found if match and int(match[1]) <= run.steps)
