"""One representation run, from options to measures, in one folder."""

import copy
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from lsdr import runs
from lsdr.regularizers.regularizer import Regularizer
from lsdr.representation.build import build_task, fitted, load
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.finish import finish
from lsdr.representation.load_run import ENCODER, describe_run
from lsdr.representation.objective import objective_regularizers
from lsdr.training.loop import Outcome, train
from lsdr.training.order import stream_seed
from lsdr.training.progress import training_bar
from lsdr.training.stepper import build_accelerator


def run(
    config: RepresentationConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    *,
    reference_seconds: float | None = None,
    show_progress: bool = False,
) -> Outcome:
    """Train, publish the weights, measure; go on from whatever of this is in `directory` already.

    Args:
        config: What to train and how.
        regularizers: What the method adds to the objective of the configuration.
        directory: The run's folder.
        reference_seconds: Training time of the baseline, at which the run is measured a second time ("@equal_time").
        show_progress: Whether to draw a progress bar.

    Returns:
        How the run ended; status.json says the same. An exception is recorded there as "crashed" and raised again.

    Raises:
        ValueError: If options, data and processes do not fit each other.
    """
    directory.mkdir(parents=True, exist_ok=True)
    accelerator = build_accelerator(
        config.training, log_with=list(config.training.trackers) or None, project_dir=directory
    )
    try:
        data = load(config)
        config = fitted(config, data)
        torch.manual_seed(stream_seed(config.training.seed, "initial weights"))
        task = build_task(config, data, accelerator.device)
        untrained = copy.deepcopy(task.encoder)
        if accelerator.is_main_process:
            runs.write_json(directory / ENCODER, describe_run(config, task.encoder))
        with training_bar(config.training.steps, show=show_progress and accelerator.is_main_process) as on_step:
            outcome = train(
                task,
                config.training,
                directory,
                accelerator,
                regularizers=(*objective_regularizers(config), *regularizers),
                reference_seconds=reference_seconds,
                on_step=on_step,
            )
        if accelerator.is_main_process:
            if outcome.over:
                finish(config, directory, task, data, outcome, untrained)
            (directory / "crash.txt").unlink(missing_ok=True)  # of an earlier try
            runs.record_status(directory, outcome.status, outcome.message)
    except Exception as error:
        if accelerator.is_main_process:
            runs.write_text(directory / "crash.txt", traceback.format_exc())
            runs.record_status(directory, "crashed", f"{type(error).__name__}: {error}")
        raise
    return outcome
