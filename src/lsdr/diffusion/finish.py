"""What is measured when a diffusion run has ended."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from lsdr import runs
from lsdr.data.subset import take
from lsdr.diffusion.build import Data
from lsdr.diffusion.config import DiffusionConfig
from lsdr.diffusion.measures.learning_rate import (
    largest_stable_lr,
    lr_grid,
    lr_sensitivity,
    median_step_seconds,
)
from lsdr.diffusion.measures.measure import measure_run
from lsdr.diffusion.task import DiffusionTask
from lsdr.measures.shared_extractor import shared_extractor
from lsdr.regularizers.regularizer import Regularizer
from lsdr.training.loop import Outcome
from lsdr.training.order import EpochOrder
from lsdr.training.stepper import build_accelerator, open_stepper

Measures = dict[str, float | None]


def measure_snapshot(
    config: DiffusionConfig, task: DiffusionTask, data: Data, directory: Path
) -> tuple[Measures, dict[str, Any], Tensor]:
    """Measure the model as it is now: held-out loss, samples, sensitivity.

    Returns:
        Measures, curves, and the samples.
    """
    device = task.heldout.pixels.device
    train = take(data.train, config.measure.train_images, device)
    denoiser = task.denoiser(task.model.to(device))
    measures, curves, samples = measure_run(
        denoiser,
        train_images=train.pixels,
        heldout_images=task.heldout.pixels,
        train_labels=train.labels if config.conditional else None,
        heldout_labels=task.heldout.labels if config.conditional else None,
        seed=config.training.seed,
        extractor=shared_extractor(directory, train, config.measure.extractor_steps, device).extractor,
        weight=partial(task.weight, denoiser),
        config=config.measure,
    )
    return dict(measures), curves, samples


def stability(
    config: DiffusionConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    task: DiffusionTask,
    outcome: Outcome,
) -> tuple[Measures, dict[str, Any]]:
    """Measures of the training itself: divergence, spikes, time, memory, and the learning-rate grid.

    The task's model must hold the initial weights.
    """
    steps = config.training.steps  # records may go on to equal wall-clock
    records = [each for each in runs.read_records(directory / "metrics.jsonl") if each["step"] <= steps]
    measures: Measures = {"diverged": float(outcome.status != "finished")}
    if records:
        measures |= {
            "gradient_spikes": float(records[-1]["spikes"]),
            "step_seconds": median_step_seconds([record["step_seconds"] for record in records]),
            "memory_mb": records[-1]["memory_mb"],
        }
    measures |= _last_spectra(directory, steps)
    if not config.lr_grid_steps:
        return measures, {}
    rates = [multiple * config.training.lr for multiple in config.lr_grid]
    try:
        grid = lr_grid(partial(_train_shortly, config, regularizers, task), rates)
    except ValueError:  # no rate gave a finite first loss: the trouble is older than any step
        return {**measures, "largest_stable_lr": None, "lr_sensitivity": None}, {}
    measures["largest_stable_lr"] = largest_stable_lr(grid.lr, grid.loss, grid.diverged, grid.initial_loss)
    measures["lr_sensitivity"] = lr_sensitivity(grid.lr, grid.loss, grid.initial_loss)
    return measures, {"lr_grid": asdict(grid)}


def _train_shortly(
    config: DiffusionConfig,
    regularizers: Sequence[Regularizer],
    task: DiffusionTask,
    lr: float,
) -> list[float]:
    """Losses of a few steps at a learning rate, from the task's weights; ends early where they are not finite."""
    training = replace(
        config.training, lr=lr, warmup=max(1, config.lr_grid_steps // 10), steps=config.lr_grid_steps, compile=False
    )
    task = replace(task, model=copy.deepcopy(task.model))
    accelerator = build_accelerator(training)
    order = EpochOrder(len(task.dataset), training.batch_size, training.seed)  # type: ignore[arg-type]
    losses: list[float] = []
    with open_stepper(task, training, accelerator, regularizers) as stepper:
        for step in range(training.steps):
            gradient = stepper.gradient(step, task.dataset.__getitems__(order.batch(step)))  # type: ignore[attr-defined]
            losses.append(gradient.loss)
            if not all(map(math.isfinite, (gradient.loss, gradient.norm))) and not stepper.overflowed(gradient):
                losses.append(math.nan)
                break
            stepper.update(step, gradient)
    accelerator.free_memory()
    return losses


def _last_spectra(directory: Path, steps: int) -> Measures:
    """Means over layers of what was last recorded of features and weights, up to `steps`."""
    records = runs.read_records(directory / "spectra.jsonl")
    last = {record["kind"]: record["layers"] for record in records if record["step"] <= steps}
    measures: Measures = {}
    if last.get("features"):
        for name in ("effective_rank", "mean_abs_correlation"):
            measures[f"feature_{name}"] = _mean([layer[name] for layer in last["features"].values()])
    if last.get("weights"):
        measures["weight_sigma_max"] = max(layer["sigma_max"] or 0.0 for layer in last["weights"].values())
    return measures


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
