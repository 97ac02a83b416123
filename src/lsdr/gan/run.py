"""One GAN run, from options to measures, in one folder."""

import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from lsdr import runs
from lsdr.gan.build import build_task, load_data
from lsdr.gan.config import GanConfig
from lsdr.gan.finish import finish
from lsdr.gan.load_run import describe_players
from lsdr.regularizers.regularizer import Regularizer
from lsdr.training.loop import Outcome, train
from lsdr.training.order import stream_seed
from lsdr.training.progress import training_bar
from lsdr.training.stepper import build_accelerator


def run(
    config: GanConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    *,
    reference_seconds: float | None = None,
    show_progress: bool = False,
) -> Outcome:
    """Train, publish the weights, measure; go on from whatever of this is in `directory` already.

    Args:
        config: What to train and how.
        regularizers: What the method adds to the configuration.
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
        _check_packs(config, accelerator.num_processes)
        _warn(config)
        data = load_data(config)
        torch.manual_seed(stream_seed(config.training.seed, "initial weights"))
        task = build_task(config, data, accelerator.device)
        if accelerator.is_main_process:
            runs.write_json(directory / "generator.json", describe_players(config, task.gan))
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
                finish(config, directory, task, data, outcome)
            (directory / "crash.txt").unlink(missing_ok=True)  # of an earlier try
            runs.record_status(directory, outcome.status, outcome.message)
    except Exception as error:
        if accelerator.is_main_process:
            runs.write_text(directory / "crash.txt", traceback.format_exc())
            runs.record_status(directory, "crashed", f"{type(error).__name__}: {error}")
        raise
    return outcome


def _check_packs(config: GanConfig, processes: int) -> None:
    """Refuse a batch that would leave packs cut in two between processes or micro-batches."""
    parts = config.packing * config.training.accumulate * processes
    if config.packing > 1 and config.training.batch_size % parts:
        raise ValueError(
            f"batch_size={config.training.batch_size} cannot be cut into packs of {config.packing} x "
            f"{config.training.accumulate} micro-batches x {processes} processes; use a multiple of {parts}"
        )


def _warn(config: GanConfig) -> None:
    """Say what works against the theory before hours go into it."""
    penalized = config.r1 != 0 or config.r2 != 0
    if config.lazy > 1 and penalized and (config.r2 != 0 or config.loss == "relativistic"):
        warnings.warn(
            f"lazy={config.lazy} with R2 or the relativistic loss gives up the convergence that they are chosen for: "
            "between two penalties the gradient at generated examples can explode; use lazy=1 unless this was measured",
            RuntimeWarning,
            stacklevel=3,
        )
    if config.training.precision == "fp16" and penalized:
        warnings.warn(
            "gradient penalties square gradients, which leave float16's range easily: watch for skipped steps, or use "
            "precision bf16",
            RuntimeWarning,
            stacklevel=3,
        )
