"""A trained encoder back from its run's folder."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lsdr import runs
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.fields import Fields
from lsdr.representation.encoder import Encoder
from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.representation.ordered_codes import OrderedCodes
from lsdr.representation.saved import describe, rebuild
from lsdr.training import checkpoint
from lsdr.training.config import TrainingConfig

ENCODER, ORDERED = "encoder.json", "ordered.safetensors"


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run of `lsdr train representation` has come to."""

    config: RepresentationConfig
    step: int
    """Steps that the encoder had taken."""
    encoder: Encoder
    """With the averaged weights, in evaluation mode and frozen."""
    ordered: OrderedCodes | None
    """The rotation in which the first dimensions are the best; None where the run has not ended, or has collapsed."""

    @property
    def fields(self) -> Fields:
        """What the data look like."""
        return self.encoder.fields


def load_run(directory: Path, device: torch.device | None = None) -> Trained:
    """Load what a run has come to: its end, or its newest checkpoint.

    The data are not read, and the global random state stays as it was.

    Args:
        directory: The run's folder.
        device: Where to; the CPU by default.

    Raises:
        ValueError: If it is no run of a representation, or has no weights yet.
    """
    facts = _facts(Path(directory))
    folder, step = _weights(Path(directory))
    with torch.random.fork_rng([]):  # initial weights are drawn before they are replaced
        encoder = rebuild(facts["encoder"])
    load_averaged(encoder, folder)
    encoder.eval().requires_grad_(False).to(device or torch.device("cpu"))
    path = Path(directory) / ORDERED
    ordered = OrderedCodes.from_tensors(load_file(path)) if path.is_file() else None
    return Trained(_config(facts["config"]), step, encoder, ordered)


def load_averaged(encoder: Encoder, folder: Path) -> None:
    """Load the averaged weights of a snapshot or a checkpoint.

    Raises:
        ValueError: If they are of another encoder.
    """
    try:
        encoder.load_state_dict(load_file(folder / "ema.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"the weights in {folder} are not of the encoder in {ENCODER}: {error}") from error


def describe_run(config: RepresentationConfig, encoder: Encoder) -> dict[str, Any]:
    """What is needed to build the encoder again, for encoder.json."""
    return {
        "config": asdict(config),
        "encoder": describe(encoder),
        "parameters": {
            name: sum(parameter.numel() for parameter in part.parameters())
            for name, part in (("backbone", encoder.backbone), ("projector", encoder.projector))
        },
    }


def _facts(directory: Path) -> dict[str, Any]:
    path = directory / ENCODER
    if not path.is_file():
        raise ValueError(f"{directory} is no run of `lsdr train representation`: it has no {ENCODER}")
    facts: dict[str, Any] = runs.read_json(path)
    if not all(isinstance(facts.get(name), dict) for name in ("config", "encoder")):
        raise ValueError(f"{path} lacks `config` or `encoder`: it was not written by `lsdr train representation`")
    return facts


def _weights(directory: Path) -> tuple[Path, int]:
    """The folder of the last weights, and after how many steps they were saved."""
    final = directory / "snapshots" / "final"
    if (final / "snapshot.json").is_file():
        return final, int(runs.read_json(final / "snapshot.json")["step"])
    saved = checkpoint.checkpoints(directory / "checkpoints")
    if not saved:
        raise ValueError(f"{directory} holds no weights yet: neither snapshots/final nor a checkpoint")
    return saved[-1], checkpoint.step_of(saved[-1])


def _config(values: Mapping[str, Any]) -> RepresentationConfig:
    """The configuration from its plain values; JSON has no tuples."""

    def made(kind: Callable[..., Any], entries: Mapping[str, Any]) -> Any:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()})

    parts = {
        "training": made(TrainingConfig, values["training"]),
        "measure": made(RepresentationMeasureConfig, values["measure"]),
    }
    config: RepresentationConfig = made(RepresentationConfig, {**values, **parts})
    return config
