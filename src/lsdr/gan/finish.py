"""What is written and measured when a GAN's training has ended."""

import shutil
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lsdr import runs
from lsdr.data.grid import image_grid
from lsdr.data.subset import Images
from lsdr.gan.build import Data, examples
from lsdr.gan.config import GanConfig
from lsdr.gan.load_run import load_players
from lsdr.gan.measures.digit_classifier import shared_digit_classifier
from lsdr.gan.measures.measure import measure_images, measure_points
from lsdr.gan.scatter import scatter
from lsdr.gan.stacked import StackedDataset, load_stacked
from lsdr.gan.task import GanTask
from lsdr.measures.shared_extractor import shared_extractor
from lsdr.probes.evaluating import evaluating
from lsdr.training.checkpoint import save_tensors
from lsdr.training.loop import Outcome

Measures = dict[str, float | None]

_KEPT_POINTS, _KEPT_IMAGES = 10_000, 256


def finish(config: GanConfig, directory: Path, task: GanTask, data: Data, outcome: Outcome) -> None:
    """Write what is left to write: weights, data, measures of the training, measures and samples of the end.

    A run that diverged before its last step has measures of its training only.

    Args:
        config: What was trained.
        directory: The run's folder.
        task: The task; its players' weights are replaced.
        data: Its data.
        outcome: How training ended.
    """
    final = directory / "snapshots" / "final"
    if final.exists():  # first of all: no failure of a measure may cost the weights
        _publish(final, directory, task)
    runs.write_json(directory / "data.json", data.describe(config.data))
    points = data.mixture is not None
    with runs.atomic(directory / "data.png") as path:
        shown = scatter(task.seen[:0], task.seen[:1000]) if points else image_grid(task.seen[:32])
        shown.save(path, format="png")
    measures, curves = _of_training(config, directory, outcome), dict[str, Any]()
    measured: dict[int, Measures] = {}  # often both snapshots are of the same step
    for folder in sorted((directory / "snapshots").glob("*"), reverse=True):
        step = runs.read_json(folder / "snapshot.json")["step"]
        if step not in measured:
            load_players(task.gan, folder)
            measured[step], its_curves, samples = measure_players(config, task, data, directory)
        if folder == final:
            diverged = max(measures["diverged"] or 0.0, measured[step].get("diverged") or 0.0)
            measures |= {**measured[step], "diverged": diverged}
            curves |= its_curves
            _save_samples(directory, task, samples)
        else:
            measures |= {f"{name}@{folder.name}": value for name, value in measured[step].items()}
    runs.write_json(directory / "curves.json", curves)
    runs.write_json(directory / "measures.json", measures)


def measure_players(
    config: GanConfig, task: GanTask, data: Data, directory: Path
) -> tuple[Measures, dict[str, Any], Tensor]:
    """Measure the players as they are now.

    Returns:
        Measures by the names of `lsdr.gan.measures.catalogue.MEASURES`, curves, and the samples that were measured.
    """
    gan, device = task.gan, task.seen.device
    seed = config.training.seed
    with evaluating(gan):
        if task.mixture is not None:
            found = measure_points(
                gan.generate,
                gan.latent_dim,
                discriminator=gan.logits,
                mixture=task.mixture,
                train=task.seen,
                heldout=task.unseen,
                seed=seed,
                config=config.measure,
            )
        else:
            # A thousand classes are too many for the few examples that it learns from.
            known = not isinstance(data.train, StackedDataset)
            labels = examples(data.train, len(task.seen), device).labels if known else None
            extractor = shared_extractor(directory, Images(task.seen, labels), config.measure.extractor_steps, device)
            found = measure_images(
                gan.generate,
                gan.latent_dim,
                discriminator=gan.logits,
                train=task.seen,
                heldout=task.unseen,
                extractor=extractor.extractor,
                **_of_stacked(config, data, directory, device),
                seed=seed,
                config=config.measure,
            )
    measures, curves, samples = found
    if gan.noise is not None:
        measures = {**measures, "noise_strength": float(gan.noise.strength)}
    return dict(measures), curves, samples


def _of_stacked(config: GanConfig, data: Data, directory: Path, device: torch.device) -> dict[str, Any]:
    """What only stacked digits have: a classifier of their thousand classes, how often each comes, and new pictures.

    New triples of the training digits are what a perfect generator would make; those that were held out are of other
    digits, and few.
    """
    if not isinstance(data.train, StackedDataset) or not isinstance(data.heldout, StackedDataset):
        return {}
    trained = shared_digit_classifier(directory, data.train, data.heldout, device)
    count = config.measure.samples
    new = load_stacked(config.data, count, part="train", size=config.size, holdout=config.holdout, seed=1)
    fresh = examples(new, count, device).pixels
    return {"classify": trained.classify, "probabilities": data.train.probabilities, "fresh": fresh}


def _publish(snapshot: Path, directory: Path, task: GanTask) -> None:
    """Both players' final weights under their plain name, and the averaged generator by itself."""
    with runs.atomic(directory / "model.safetensors") as path:
        shutil.copyfile(snapshot / "model.safetensors", path)
    load_players(task.gan, snapshot)
    save_tensors(directory / "generator.safetensors", task.gan.generator.state_dict())


def _save_samples(directory: Path, task: GanTask, samples: Tensor) -> None:
    points = task.mixture is not None
    kept = samples[: _KEPT_POINTS if points else _KEPT_IMAGES]
    save_tensors(directory / "samples.safetensors", {"samples": kept, "data": task.seen[: len(kept)]})
    with runs.atomic(directory / "samples" / "final.png") as path:
        shown = scatter(kept[:1000], task.seen[:1000]) if points else image_grid(kept[:32])
        shown.save(path, format="png")


def _of_training(config: GanConfig, directory: Path, outcome: Outcome) -> Measures:
    """Measures of the training itself: divergence, spikes, time, memory, what was lost on the way, weights."""
    steps = config.training.steps  # records may go on to equal wall-clock
    read = {
        name: [each for each in runs.read_records(directory / f"{name}.jsonl") if each["step"] <= steps]
        for name in ("metrics", "evaluations", "spectra")
    }
    measures: Measures = {"diverged": float(outcome.status != "finished")}
    if read["metrics"]:
        durations = [record["step_seconds"] for record in read["metrics"]]
        measures |= {
            "gradient_spikes": float(read["metrics"][-1]["spikes"]),
            "step_seconds": median(durations[1:] or durations),  # the first allocates
            "memory_mb": read["metrics"][-1]["memory_mb"],
        }
    known = partial(_column, read["evaluations"])
    late = [value for step, value in known("modes") if step >= steps / 2]
    if late:
        measures["modes_lowest"] = min(late)
    quality = [value for _, value in known("high_quality")]
    if quality:
        measures["high_quality_fall"] = max(quality) - quality[-1]
    return measures | _of_spectra(read["spectra"])


def _column(records: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(record["step"], record[name]) for record in records if record.get(name) is not None]


def _of_spectra(records: list[dict[str, Any]]) -> Measures:
    """Of the last spectra: the largest singular values, and means over layers of what features were like."""
    last = {record["kind"]: record["layers"] for record in records}
    measures: Measures = {}
    for name, part in (("weight", ""), ("generator", "generator."), ("discriminator", "discriminator.")):
        layers = last.get("weights", {})
        sizes = [each["sigma_max"] for layer, each in layers.items() if layer.startswith(part)]
        if any(size is not None for size in sizes):
            measures[f"{name}_sigma_max"] = max(size for size in sizes if size is not None)
    for name in ("effective_rank", "mean_abs_correlation"):
        values = [layer[name] for layer in last.get("features", {}).values() if layer[name] is not None]
        if values:
            measures[f"feature_{name}"] = sum(values) / len(values)
    return measures
