"""What an update finds of a layer: whether it can be trusted, and how it comes over from a GPU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsdr.linalg.tracked_layer import GroupKey, Layer

StepResult = tuple[dict[GroupKey, Tensor], list[float | Tensor | None]]
"""Small matrices of each group, and the sum of squares of each layer, where they were computed."""

# A layer of zeros is looked at in this unit: the smallest number that float32 knows does not vanish.
_ZERO_UNIT = 2.0**-100
# Singular values within this factor of 1 are squared as they are; others are divided by a power of two first.
_SAFE = 2.0**20
# A sum of squares below this for each entry may have lost entries to underflow.
_UNDERFLOW = 2.0**-100


@dataclass(frozen=True)
class Reading:
    """A layer's results, in units of its scale."""

    squares: list[float]
    residual: list[float]
    frobenius: float | None
    """Squared; None if not known."""
    method: str = "block power iteration"
    upper: float = math.inf
    """In units of the weight."""


def size_of(reading: Reading) -> float:
    """What is zero for a layer of zeros alone."""
    return reading.squares[0] if reading.frobenius is None else reading.frobenius


def trusted(layer: Layer, reading: Reading) -> bool:
    """Whether nothing overflowed, vanished or is not finite, and the vector has not become useless."""
    size, largest = size_of(reading), reading.squares[0]
    if not math.isfinite(size + sum(reading.squares) + sum(reading.residual)):
        return False
    if size == 0:
        return layer.scale == _ZERO_UNIT and not layer.started
    if size < _UNDERFLOW * layer.shape[0] * layer.shape[1]:
        return False
    return _SAFE**-3 < largest < _SAFE**3


def unit_of(largest: float, dtype: torch.dtype) -> float:
    """The unit for a layer whose products are of this size; what is divided by it stays a normal number of the type."""
    if largest == 0:
        return _ZERO_UNIT
    limit = 120 if dtype == torch.float32 else 1000
    return 1.0 if 1 / _SAFE <= largest <= _SAFE else 2.0 ** max(-limit, min(limit, math.frexp(largest)[1]))


def to_host(
    small: dict[GroupKey, Tensor], sums: Sequence[float | Tensor | None]
) -> tuple[dict[GroupKey, Tensor], list[float | None]]:
    """Small matrices and sums of squares, brought over in one transfer a device."""
    on_device: dict[torch.device, list[Tensor]] = {}
    for tensor in [*small.values(), *(total for total in sums if isinstance(total, Tensor))]:
        if tensor.device.type != "cpu":
            on_device.setdefault(tensor.device, []).append(tensor)
    arrived: dict[int, Tensor] = {}
    for tensors in on_device.values():
        host = torch.cat([tensor.flatten().double() for tensor in tensors]).cpu()
        for tensor, values in zip(tensors, host.split([tensor.numel() for tensor in tensors]), strict=True):
            arrived[id(tensor)] = values.view(tensor.shape)
    totals = [None if total is None else float(arrived.get(id(total), total)) for total in sums]
    return {key: arrived.get(id(tensor), tensor) for key, tensor in small.items()}, totals
