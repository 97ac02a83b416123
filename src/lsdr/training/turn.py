"""The moves of a step: one for a model with one loss, one a player for a game."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Losses = Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, dict[str, Any]]]


@dataclass(frozen=True)
class Turn:
    """One player's move within a step: its loss is minimised over its own parameters, all others held fixed.

    The turns of a step follow each other: each sees the weights that the one before has left (alternating gradient
    descent; Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1).
    """

    name: str
    """The child module of the model whose parameters move; empty for the whole model."""
    losses: Losses
    """As `Task.losses`. Its context may have "record": numbers by name, 0-dimensional tensors, to be recorded."""
    lr_scale: float = 1.0
    """Multiple of the configured learning rate."""
    betas: tuple[float, float] | None = None
    """AdamW's decay rates; None for the configured ones."""

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """The trained parameters that move."""
        player = model.get_submodule(self.name)
        return [parameter for parameter in player.parameters() if parameter.requires_grad]


def turns_of(task: Any) -> tuple[Turn, ...]:
    """The turns of a task's steps: its `turns()`, or the one turn of a task that has only `losses`.

    Example:
        >>> from types import SimpleNamespace
        >>> [turn.name for turn in turns_of(SimpleNamespace(losses=lambda model, batch: None))]
        ['']
    """
    turns: Any = getattr(task, "turns", None)
    return (Turn("", task.losses),) if turns is None else tuple(turns())
