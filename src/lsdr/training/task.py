"""What the training loop needs to know of a task."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lsdr.layers.select import Layers


@runtime_checkable
class Task(Protocol):
    """A model, its examples and its loss; the loop supplies the rest.

    Everything random about a step comes from `draws`, so that a step can be replayed, split over ranks and
    micro-batches, and paired between runs.
    """

    model: nn.Module
    dataset: Dataset[Any]
    """Map-style dataset of training examples whose `__getitems__(indices)` gives a dict of batched tensors with
    "index"; the loop decides the order."""

    def draws(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw all randomness of a batch of `count` examples: tensors with leading dimension `count`."""
        ...

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Loss of each example (shape (b,)) and the context that regularizers may ask for."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out values to record as training goes on; must not use the global generator."""
        ...

    def picture(self, model: nn.Module) -> Any | None:
        """A PIL image of what the model makes now, or None; must not use the global generator."""
        ...

    def feature_layers(self) -> Layers | None:
        """Names of the layers whose feature spectra are recorded, or None."""
        ...

    def name(self, index: int) -> str:
        """What a person calls the example with this index."""
        ...
