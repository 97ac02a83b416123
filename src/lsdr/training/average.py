"""Exponential moving average of a model's weights."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    r"""Average the weights of a model over training.

    .. math:: \bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta, \quad d = \min(\text{decay}, (1 + n) / (10 + n))

    The first updates average over few steps (n counts updates), so that a short run is not held at its initial weights.
    Buffers are copied. Cost: one fused pass over the weights a step.

    Args:
        model: The model to follow; it is copied once.
        decay: d, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # Walking a model's modules costs as much as the arithmetic; which tensors there are does not change.
        self._averages: list[Tensor] = list(self.model.parameters())
        self._buffers = list(self.model.buffers())

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], buffers: Sequence[Tensor], updates: int) -> None:
        """Move towards the given weights.

        Args:
            weights: The model's parameters, in its order.
            buffers: The model's buffers, in its order.
            updates: Number of updates before this one.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self._averages, list(weights), 1 - decay)
        for average, buffer in zip(self._buffers, buffers, strict=True):
            average.copy_(buffer)
