"""A trained GAN back from its folder: its players and its data."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lsdr import runs
from lsdr.gan.build import Data, build_task, load_data
from lsdr.gan.config import GanConfig
from lsdr.gan.measures.config import GanMeasureConfig
from lsdr.gan.players import Gan
from lsdr.gan.task import GanTask
from lsdr.training import checkpoint
from lsdr.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run of `lsdr train gan`."""

    config: GanConfig
    step: int
    """Steps that the players had taken."""
    task: GanTask
    """With the averaged generator and the discriminator that played, both in evaluation mode and frozen."""
    data: Data


def load_run(directory: Path, device: torch.device | None = None) -> LoadedRun:
    """Load what a run has come to: its end, or its newest checkpoint.

    The data are read again from where the run read them. The global random state stays as it was.

    Args:
        directory: The run's folder.
        device: Where to; the CPU by default.

    Returns:
        The run; `task.gan.sample(count)` draws samples, `task.gan.logits(examples)` judges examples.

    Raises:
        ValueError: If it is no run of a GAN, has no weights yet, or its data are not to be had.
    """
    facts = _facts(directory)
    config = _config(facts["config"])
    folder, step = _weights(directory)
    device = device or torch.device("cpu")
    data = load_data(config)
    with torch.random.fork_rng([]):  # initial weights are drawn before they are replaced
        task = build_task(config, data, device)
    load_players(task.gan, folder)
    task.gan.eval().requires_grad_(False).to(device)
    return LoadedRun(config, step, task, data)


def load_players(gan: Gan, folder: Path) -> None:
    """Load a snapshot's or a checkpoint's averaged generator, and its discriminator as it played, not its average."""
    averaged, playing = load_file(folder / "ema.safetensors"), load_file(folder / "model.safetensors")
    gan.load_state_dict({n: (playing if n.startswith("discriminator.") else averaged)[n] for n in averaged})


def describe_players(config: GanConfig, gan: Gan) -> dict[str, Any]:
    """What is needed to build the players again, for generator.json."""
    return {
        "config": asdict(config),
        "shape": list(gan.shape),
        "latent_dim": gan.latent_dim,
        "center": gan.center.tolist(),
        "spread": float(gan.spread),
        "parameters": {
            name: sum(parameter.numel() for parameter in player.parameters())
            for name, player in (("generator", gan.generator), ("discriminator", gan.discriminator))
        },
    }


def _facts(directory: Path) -> dict[str, Any]:
    path = directory / "generator.json"
    if not path.is_file():
        raise ValueError(f"{directory} is no run of `lsdr train gan`: it has no generator.json")
    facts: dict[str, Any] = runs.read_json(path)
    if not isinstance(facts.get("config"), dict):
        raise ValueError(f"{path} has no entry `config`: it was not written by `lsdr train gan`")
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


def _config(values: Mapping[str, Any]) -> GanConfig:
    """The configuration from its plain values; JSON has no tuples."""

    def made(kind: Callable[..., Any], entries: Mapping[str, Any]) -> Any:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()})

    parts = {
        "training": made(TrainingConfig, values["training"]),
        "measure": made(GanMeasureConfig, values["measure"]),
    }
    config: GanConfig = made(GanConfig, {**values, **parts})
    return config
