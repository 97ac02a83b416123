"""Training of an encoder on rows in memory: the one training loop, in a folder that is gone afterwards."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file

from lsdr import runs
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.representation_data import RepresentationData, examples
from lsdr.representation.encoder import Encoder
from lsdr.representation.objective import objective_regularizers, objective_value
from lsdr.representation.task import RepresentationTask
from lsdr.representation.views.view import View
from lsdr.training.loop import train
from lsdr.training.progress import training_bar
from lsdr.training.stepper import build_accelerator

# Rows that are looked at when training ends; nothing is kept aside.
_WATCHED = 32


def train_encoder(
    encoder: Encoder, config: RepresentationConfig, data: RepresentationData, view: View, *, show_progress: bool = False
) -> list[dict[str, Any]]:
    """Train an encoder in place; it ends with the averaged weights, in evaluation mode, on the device of training.

    Args:
        encoder: With its initial weights.
        config: How.
        data: Its training part is learned from.
        view: What makes the views.
        show_progress: Whether to draw a progress bar.

    Returns:
        The records of training.

    Raises:
        RuntimeError: If training did not come to its end.
        KeyboardInterrupt: If it was interrupted.
    """
    accelerator = build_accelerator(config.training)
    watched, _, _ = examples(data.train, data.fields, _WATCHED, accelerator.device)
    task = RepresentationTask(
        model=encoder,
        config=config,
        dataset=data.train,
        view=view,
        objective=objective_value(config),
        seen=watched,
        unseen=watched,
        names=data.name,
    )
    with TemporaryDirectory(prefix="lsdr-") as name:
        folder = Path(name)
        with training_bar(config.training.steps, show=show_progress) as on_step:
            outcome = train(
                task,
                config.training,
                folder,
                accelerator,
                regularizers=objective_regularizers(config),
                on_step=on_step,
            )
        if outcome.status == "interrupted":
            raise KeyboardInterrupt(outcome.message)
        if outcome.status != "finished":
            raise RuntimeError(f"training ended as {outcome.status} after {outcome.step} steps: {outcome.message}")
        encoder.load_state_dict(load_file(folder / "snapshots" / "final" / "ema.safetensors"))
        history = runs.read_records(folder / "metrics.jsonl")
    encoder.requires_grad_(False).eval()
    return history
