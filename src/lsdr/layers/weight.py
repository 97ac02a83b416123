"""Read a layer's weight without disturbing what computes it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized


def read_weight(module: nn.Module) -> Tensor:
    """A layer's weight as it is used in evaluation, without advancing whatever computes it.

    A plain weight is returned as it is, without a copy. A parametrized one (spectral norm, weight norm, ...) is
    computed on a copy in evaluation mode, so that no power iteration advances and no random number is drawn.

    Args:
        module: A layer with a `weight` of two dimensions or more.

    Returns:
        The weight, detached, in the type and on the device where it is stored.

    Raises:
        ValueError: If there is no such weight, it is sharded over ranks, quantized, on the meta device or empty.

    Example:
        >>> layer = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3))
        >>> read_weight(layer).shape
        torch.Size([3, 2])
    """
    with torch.no_grad():
        if is_parametrized(module, "weight"):
            parametrizations: Any = module.parametrizations
            computed = copy.deepcopy(parametrizations["weight"]).eval()
            device = computed.original.device if hasattr(computed, "original") else computed.original0.device
            # A parametrization may draw random numbers; a measurement leaves the generators as they were.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                weight = computed()
        else:
            weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else None
        raise ValueError(
            f"{type(module).__name__} needs a weight of two dimensions or more, got "
            f"{'none' if shape is None else f'shape {shape}'}: select other layers"
        )
    if hasattr(weight, "full_tensor"):
        raise ValueError(
            "the weight is sharded over ranks (DTensor), so its spectrum is not here: track it with "
            "lsdr.linalg.tracking.Tracker, which never gathers it, or gather it first"
        )
    if weight.is_meta or not weight.numel():
        raise ValueError(f"the weight of shape {tuple(weight.shape)} on {weight.device} holds no values")
    if not weight.is_floating_point():
        raise ValueError(f"the weight is stored as {weight.dtype}, without its scales: dequantize the layer first")
    return weight.detach()
