"""What is written and measured when a representation run's training has ended."""

import shutil
from pathlib import Path
from statistics import median

import torch

from lsdr import runs
from lsdr.data.grid import image_grid
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.fields import ImageFields
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.encoder import Encoder
from lsdr.representation.load_run import ORDERED, load_averaged
from lsdr.representation.measures.measure import measure_all
from lsdr.representation.ordered_codes import OrderedCodes, two_view_moments
from lsdr.representation.task import RepresentationTask
from lsdr.training.checkpoint import save_tensors
from lsdr.training.loop import Outcome

Measures = dict[str, float | None]


def finish(
    config: RepresentationConfig,
    directory: Path,
    task: RepresentationTask,
    data: RepresentationData,
    outcome: Outcome,
    untrained: Encoder,
) -> None:
    """Write what is left to write: weights, ordered codes, data, views, measures.

    A run that diverged before its last step has measures of its training only.

    Args:
        config: What was trained.
        directory: The run's folder.
        task: The task; its encoder's weights are replaced.
        data: Its data.
        outcome: How training ended.
        untrained: The encoder with its initial weights.
    """
    encoder, final = task.encoder, directory / "snapshots" / "final"
    if final.exists():  # first of all: no failure of a measure may cost the weights
        with runs.atomic(directory / "model.safetensors") as path:
            shutil.copyfile(final / "model.safetensors", path)
        with runs.atomic(directory / "encoder.safetensors") as path:
            shutil.copyfile(final / "ema.safetensors", path)
        load_averaged(encoder, final)
        _save_order(config, directory, task)
    runs.write_json(directory / "data.json", data.describe(config.data))
    if isinstance(data.fields, ImageFields):
        _save_pictures(directory, task)
    measures = _of_training(config, directory, outcome)
    device = next(iter(task.seen.values())).device
    measured: dict[int, Measures] = {}  # often both snapshots are of the same step
    for folder in sorted((directory / "snapshots").glob("*"), reverse=True):
        step = runs.read_json(folder / "snapshot.json")["step"]
        if step not in measured:
            load_averaged(encoder, folder)
            where = directory if folder == final else folder
            measured[step] = dict(
                measure_all(
                    encoder.to(device),
                    data,
                    task.view,
                    config.measure,
                    device,
                    where,
                    untrained=untrained.to(device),
                    objective=task.objective,
                )
            )
        if folder == final:
            measures |= measured[step]
        else:
            measures |= {f"{name}@{folder.name}": value for name, value in measured[step].items() if "@" not in name}
    runs.write_json(directory / "measures.json", measures)


def _save_order(config: RepresentationConfig, directory: Path, task: RepresentationTask) -> None:
    """The rotation to ordered codes, from two views of what was trained on; none of codes that have collapsed."""
    device = next(iter(task.seen.values())).device
    encoder = task.encoder.to(device)
    moments = two_view_moments(encoder, task.dataset, encoder.fields, task.view, robust=config.robust, device=device)
    try:
        ordered = OrderedCodes.of(moments)
    except ValueError:
        (directory / ORDERED).unlink(missing_ok=True)
        return
    save_tensors(directory / ORDERED, ordered.tensors())


def _save_pictures(directory: Path, task: RepresentationTask) -> None:
    """Training images, and images above two views of each: what must not matter."""
    image = task.seen["image"]
    with runs.atomic(directory / "data.png") as path:
        image_grid(image[:32] * 2 - 1).save(path, format="png")
    views = [each["image"] for each in task.two_views({"image": image[:8]})]
    with runs.atomic(directory / "views.png") as path:
        image_grid(torch.cat([image[:8], *views]) * 2 - 1).save(path, format="png")


def _of_training(config: RepresentationConfig, directory: Path, outcome: Outcome) -> Measures:
    """Measures of the training itself: divergence, spikes, time, memory."""
    steps = config.training.steps  # records may go on to equal wall-clock
    records = [each for each in runs.read_records(directory / "metrics.jsonl") if each["step"] <= steps]
    measures: Measures = {"diverged": float(outcome.status != "finished")}
    if records:
        durations = [record["step_seconds"] for record in records]
        measures |= {
            "gradient_spikes": float(records[-1]["spikes"]),
            "step_seconds": median(durations[1:] or durations),  # the first allocates
            "memory_mb": records[-1]["memory_mb"],
        }
    return measures
