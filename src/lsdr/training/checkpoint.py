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
from lsdr.training.exhausted import disk_full, is_disk_full

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

    Raises:
        DiskFullError: If there is no room; older checkpoints are still there and nothing of this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    target = folder / f"{_PREFIX}{checkpoint.state['step']:08d}"
    unfinished = folder / f".{target.name}.tmp"
    _write(unfinished, checkpoint, "state.json")
    if target.exists():  # written before a rollback or a resume; the new one is the same or better
        _remove(target)
    unfinished.rename(target)
    runs.flush(folder)
    for old in checkpoints(folder)[:-keep]:
        _remove(old)
    return target


def save_snapshot(folder: Path, snapshot: Checkpoint) -> None:
    """Write the weights of one moment into a folder, with snapshot.json last.

    Raises:
        DiskFullError: If there is no room; the folder is removed then.
    """
    _write(folder, snapshot, "snapshot.json")


def _write(folder: Path, content: Checkpoint, state: str) -> None:
    """Write groups of tensors and then the state, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for group, tensors in content.tensors.items():
            save_tensors(folder / f"{group}.safetensors", tensors)
        runs.write_json(folder / state, content.state)
        runs.flush(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not is_disk_full(error):
            raise
        needed = sum(tensor.nbytes for tensors in content.tensors.values() for tensor in tensors.values())
        raise disk_full(folder.parent, needed) from error


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill in between leaves nothing that looks like one."""
    doomed = path.with_name(f".{path.name}.old.tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; shared memory is written once for each name."""
    content = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    data = save(content)
    with runs.atomic(path) as temporary:
        temporary.write_bytes(data)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def step_of(checkpoint: Path) -> int:
    """The number of steps taken when a finished checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


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
    """The optimiser's state as tensors named "<parameter>/<entry>"; plain numbers become tensors of no dimension."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}/{entry}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    # AdamW keeps its step counter, a float, on the CPU unless it is fused.
    fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        if value.ndim == 0 and not value.is_floating_point():  # the step counter of 8-bit AdamW is a plain number
            optimizer.state[parameters[name]][entry] = value.item()
            continue
        device = "cpu" if entry == "step" and not fused else parameters[name].device
        optimizer.state[parameters[name]][entry] = value.to(device, copy=True)
