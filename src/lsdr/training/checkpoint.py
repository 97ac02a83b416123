"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lsdr import runs

_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on bit for bit.

    Attributes:
        tensors: Named groups (model, ema, optimizer, regularizers), each a dict of tensors.
        state: Whatever else, as plain JSON values, with "step".
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder`/step-N atomically and remove all but the newest `keep`.

    Args:
        folder: Where the run's checkpoints are.
        checkpoint: What to write.
        keep: Checkpoints to keep, at least 1.

    Returns:
        The folder written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    target = folder / f"{_PREFIX}{checkpoint.state['step']:08d}"
    unfinished = folder / f".{target.name}.tmp"
    unfinished.mkdir()
    for group, tensors in checkpoint.tensors.items():
        save_tensors(unfinished / f"{group}.safetensors", tensors)
    runs.write_json(unfinished / "state.json", checkpoint.state)
    runs.flush(unfinished)
    if target.exists():  # written before a rollback or a resume; the new one is the same or better
        _remove(target)
    unfinished.rename(target)
    runs.flush(folder)
    for old in checkpoints(folder)[:-keep]:
        _remove(old)
    return target


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill in between leaves nothing that looks like one."""
    doomed = path.with_name(f".{path.name}.old.tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; shared memory is written once for each name."""
    content = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    data = save(content)
    with runs.atomic(path) as temporary:
        temporary.write_bytes(data)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def load_latest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint, or None when there is none.

    Raises:
        ValueError: If a file in it cannot be read; the message names it.
    """
    found = checkpoints(folder)
    if not found:
        return None
    tensors = {}
    for path in sorted(found[-1].glob("*.safetensors")):
        try:
            tensors[path.stem] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"checkpoint file {path} cannot be read ({error}); delete the folder {found[-1]} to resume from the "
                "one before"
            ) from error
    return Checkpoint(tensors, runs.read_json(found[-1] / "state.json"))


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in folder.glob(f".{_PREFIX}*.tmp"):
        shutil.rmtree(path)


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as tensors named "<parameter>/<entry>"."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{entry}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        # Adam keeps its step counter on the CPU whatever the device of the weights.
        device = "cpu" if entry == "step" else parameters[name].device
        optimizer.state[parameters[name]][entry] = value.to(device, copy=True)
