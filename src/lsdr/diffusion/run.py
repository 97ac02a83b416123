"""One diffusion run, from options to measures, in one folder."""

import copy
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lsdr import runs
from lsdr.data.grid import image_grid
from lsdr.data.subset import take
from lsdr.diffusion.build import Data, build_task, load_data
from lsdr.diffusion.config import DiffusionConfig
from lsdr.diffusion.finish import measure_snapshot, stability
from lsdr.diffusion.task import DiffusionTask
from lsdr.regularizers.regularizer import Regularizer
from lsdr.training.loop import Outcome, train
from lsdr.training.order import stream_seed
from lsdr.training.progress import training_bar
from lsdr.training.stepper import build_accelerator


def run(
    config: DiffusionConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    *,
    reference_seconds: float | None = None,
    show_progress: bool = False,
) -> Outcome:
    """Train, publish the weights, measure; go on from whatever of this is in `directory` already.

    Args:
        config: What to train and how.
        regularizers: The method; empty for plain training.
        directory: The run's folder.
        reference_seconds: Training time of the baseline, at which the run is measured a second time ("@equal_time").
        show_progress: Whether to draw a progress bar.

    Returns:
        How the run ended; status.json says the same. An exception is recorded there as "crashed" and raised again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    accelerator = build_accelerator(
        config.training, log_with=list(config.training.trackers) or None, project_dir=directory
    )
    try:
        if accelerator.num_processes > 1 and config.lr_grid_steps:
            raise ValueError(
                f"the learning-rate test runs on one process, got {accelerator.num_processes}; give --lr-grid-steps 0"
            )
        data = load_data(config)
        torch.manual_seed(stream_seed(config.training.seed, "initial weights"))
        task = build_task(config, data, accelerator.device)
        # Training wraps and hooks its model; what is measured afterwards is a model as it was built.
        untouched = replace(task, model=copy.deepcopy(task.model))
        with training_bar(config.training.steps, show=show_progress and accelerator.is_main_process) as on_step:
            outcome = train(
                task,
                config.training,
                directory,
                accelerator,
                regularizers=regularizers,
                reference_seconds=reference_seconds,
                on_step=on_step,
            )
        if accelerator.is_main_process:
            if outcome.over:
                _conclude(config, regularizers, directory, untouched, data, outcome)
            (directory / "crash.txt").unlink(missing_ok=True)  # of an earlier try
            runs.record_status(directory, outcome.status, outcome.message)
    except Exception as error:
        if accelerator.is_main_process:
            runs.write_text(directory / "crash.txt", traceback.format_exc())
            runs.record_status(directory, "crashed", f"{type(error).__name__}: {error}")
        raise
    return outcome


def _conclude(
    config: DiffusionConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    task: DiffusionTask,
    data: Data,
    outcome: Outcome,
) -> None:
    """Write what is left to write once training has ended: data, weights, measures."""
    device = task.heldout.pixels.device
    final = directory / "snapshots" / "final"
    if final.exists():  # first of all: no failure of a measure may cost the weights
        _publish(final, directory, task)
    runs.write_json(directory / "data.json", data.describe(config.data))
    with runs.atomic(directory / "data.png") as path:
        image_grid(take(data.train, 32, device).pixels).save(path, format="png")
    measures, curves = stability(config, regularizers, directory, task, outcome)
    measured: dict[int, dict[str, float | None]] = {}  # often both snapshots are of the same step
    for folder in sorted((directory / "snapshots").glob("*"), reverse=True):
        step = runs.read_json(folder / "snapshot.json")["step"]
        if step not in measured:
            task.model.load_state_dict(load_file(folder / "ema.safetensors"))
            measured[step], its_curves, samples = measure_snapshot(config, task, data, directory)
        if folder == final:
            measures |= measured[step]
            curves |= its_curves
            with runs.atomic(directory / "samples" / "final.png") as path:
                image_grid(samples[:32]).save(path, format="png")
        else:
            measures |= {f"{name}@{folder.name}": value for name, value in measured[step].items()}
    runs.write_json(directory / "curves.json", curves)
    runs.write_json(directory / "measures.json", measures)


def _publish(snapshot: Path, directory: Path, task: DiffusionTask) -> None:
    """The final weights under their plain name, and the averaged ones in diffusers' layout where that exists."""
    with runs.atomic(directory / "model.safetensors") as path:
        shutil.copyfile(snapshot / "model.safetensors", path)
    averaged = copy.deepcopy(task.model)
    averaged.load_state_dict(load_file(snapshot / "ema.safetensors"))
    save: Any = getattr(averaged, "save_pretrained", None)
    if save is not None:
        save(directory / "diffusers")
