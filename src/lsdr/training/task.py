"""What the training loop needs to know of a task."""

from collections.abc import Mapping, Sequence
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

    Parameters of the model that do not require grad are left alone: not optimised, averaged or saved.

    A task may have three methods more: `probes(model)` (see `probes_of`), `on_monitored(values, step)` (see
    `events_of`), and `turns()` for a game of several players (see `lsdr.training.turn`), which then have the losses.
    """

    model: nn.Module
    dataset: Dataset[Any]
    """Map-style dataset of training examples whose `__getitems__(indices)` gives a dict of batched tensors with
    "index"; the loop decides the order. With an attribute `groups`, index sequences that together hold each
    example once, a batch is of one group only; with a method `order(batch_size, seed)` the order is its own."""

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


def probes_of(task: Task, model: nn.Module) -> Mapping[str, Any] | None:
    """What the loop's monitor measures: the task's `probes(model)`, by the names that their values begin with.

    None, also from a task without that method, is the monitor's own default: the weights' largest singular values.
    """
    probes: Any = getattr(task, "probes", None)
    return None if probes is None else probes(model)


def events_of(task: Task, values: Mapping[str, float], step: int) -> list[dict[str, Any]]:
    """What a task says to newly measured values: the events of its `on_monitored(values, step)`, none without it.

    The loop calls it with what the monitor saw in step `step` (counted from 0), and with the held-out values, by
    the names that `evaluate` gives them, found after that step. When a run is resumed, it is called again with all
    recorded values in their order, so that what it remembers is there again; those events are not recorded twice.

    Args:
        task: The task.
        values: What was measured.
        step: In which step, or after which.

    Returns:
        Records for events.jsonl: "step" and "action" ("none") are filled in where they are missing; "kind" and
        "message" are for the task to give.
    """
    respond: Any = getattr(task, "on_monitored", None)
    events: Sequence[Mapping[str, Any]] = () if respond is None else respond(values, step)
    return [{"step": step, "action": "none", **event} for event in events]
