"""Exponential moving average of a model's weights."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    r"""Average the weights of a model over training.

    .. math:: \bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta, \quad d = \min(\text{decay}, (1 + n) / (10 + n))

    The first updates average over few steps (n counts updates), so that a short run is not held at its initial weights.
    Buffers are copied. Parameters that are frozen (`requires_grad` is false) are not averaged and not copied: the
    average shares the model's own. Cost: one fused pass over the trained weights a step, and their memory.

    Args:
        model: The model to follow; what it trains is copied once.
        decay: d, in [0, 1).

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> _ = model[0].requires_grad_(False)
        >>> average = ExponentialMovingAverage(model, 0.9)
        >>> average.model[0].weight is model[0].weight, average.model[1].weight is model[1].weight
        (True, False)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        frozen = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
        self.model = copy.deepcopy(model, frozen).eval().requires_grad_(False)
        self.decay = decay
        # Walking a model's modules costs as much as the arithmetic; which tensors there are does not change.
        pairs = zip(model.parameters(), self.model.parameters(), strict=True)
        self._averages: list[Tensor] = [mine for own, mine in pairs if own.requires_grad]
        self._buffers = list(self.model.buffers())

    @property
    def buffers(self) -> list[Tensor]:
        """The buffers as they were after the last update, in the model's order."""
        return self._buffers

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], buffers: Sequence[Tensor], updates: int) -> None:
        """Move towards the given weights.

        Args:
            weights: The model's trained parameters, in its order.
            buffers: The model's buffers, in its order.
            updates: Number of updates before this one.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self._averages, list(weights), 1 - decay)
        for average, buffer in zip(self._buffers, buffers, strict=True):
            average.copy_(buffer)
