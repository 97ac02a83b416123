"""The state in which a model is measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(denoiser: Callable[..., Any]) -> Iterator[None]:
    """Hold a denoiser's model in evaluation mode and at full precision, and leave every flag as it was found.

    Evaluation mode makes the model a deterministic function of one image at a time (no dropout, no batch statistics, no
    power-iteration buffers moving); without autocast, finite differences are not lost in rounding.

    Args:
        denoiser: A denoiser; its model is itself, or its attribute `model`, or none if it is a plain function.

    Example:
        >>> net = nn.Dropout()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    model = denoiser if isinstance(denoiser, nn.Module) else getattr(denoiser, "model", None)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    flags = [module.training for module in modules]
    try:
        # The attribute itself, not eval(): a model may override eval() with side effects.
        for module in modules:
            module.training = False
        with torch.autocast("cpu" if weight is None else weight.device.type, enabled=False):
            yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
