"""How the small classifiers that measure samples are made: from one seed, and once for all runs of a comparison."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_RATE, _DECAY = 3e-3, 1e-2

Classifier = TypeVar("Classifier", bound=nn.Module)


def blank(build: Callable[[], Classifier]) -> Classifier:
    """A network with memory but no values: built without drawing from the global generator."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu")


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Give a network its first values: He's initialisation, drawn on the CPU from `generator` alone; norms do nothing.

    Args:
        network: Of linear and convolutional layers and norms.
        generator: Source of randomness, on the CPU.
    """
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1:
                scale = (2 / parameter[0].numel()) ** 0.5
                parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.data.fill_(float(name == "weight"))


def fit(
    scores: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    draw: Callable[[], tuple[Tensor, Tensor]],
    steps: int,
) -> None:
    """Learn to classify: cross-entropy, AdamW, one cycle of the learning rate, in float32.

    Args:
        scores: Maps images to scores of classes.
        parameters: What learns.
        draw: Gives a batch: images, and their classes.
        steps: Training steps.
    """
    learning = list(parameters)
    optimizer = torch.optim.AdamW(learning, lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=max(steps, 2))
    with torch.enable_grad(), torch.autocast(learning[0].device.type, enabled=False):
        for _ in range(steps):
            images, classes = draw()
            loss = F.cross_entropy(scores(images), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def shared_folder(directory: Path) -> Path:
    """Where a run keeps what all runs of its comparison use: the comparison's folder, two above; or its own.

    Args:
        directory: The run's folder.
    """
    root = directory.parent.parent
    return root if (root / "experiment.json").exists() else directory
