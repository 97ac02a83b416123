"""Sizes of gradients, layer by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lsdr.layers.select import Layers, select_layers
from lsdr.probes.nothing import NothingMeasuredError

# Below this sum of squares, entries that matter may have squares that float32 does not hold.
_LEAST = 1e-28
# Entries that are widened at a time.
_PART = 1 << 20


@dataclass(frozen=True)
class GradientProbe:
    r"""Norms of the gradients of chosen layers, read from `.grad` where they lie; nothing is hooked or changed.

    .. math:: \lVert g_\ell \rVert, \qquad \lVert g_\ell \rVert / \lVert w_\ell \rVert

    over all parameters that a layer itself holds (weight and bias together). Call it after `backward()` and before
    `zero_grad()`; a gradient that is there is taken as it is: clipped or not, scaled by a gradient scaler or not,
    summed over the chunks that went backward. Of sharded parameters (DTensor) only squares are summed over the ranks.

    Args:
        layers: Glob, several globs, regular expression or predicate (see `select_layers`).

    Example:
        >>> model = nn.Linear(1, 1)
        >>> model(torch.tensor([[3.0]])).sum().backward()
        >>> GradientProbe()(model)[""]["norm"]  # of d/dw = 3 and d/db = 1
        3.1622...
    """

    layers: Layers = "*"
    prefix: ClassVar[str] = "gradients"

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers that hold trained parameters of their own, by name.

        Raises:
            ValueError: If there are none among those that match.
        """
        selected = select_layers(model, self.layers)
        trained = {name: module for name, module in selected.items() if any(p.requires_grad for p in _own(module))}
        if not trained:
            raise ValueError(f"none of the {len(selected)} layers that match {self.layers!r} holds trained parameters")
        return trained

    def __call__(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """Measure now.

        Args:
            model: Plain, compiled or wrapped.

        Returns:
            Of each layer that has a gradient: its "norm", its "relative" norm, and, if it is not finite, the count of
            entries that are to blame as "nonfinite" instead.

        Raises:
            NothingMeasuredError: If no layer has a gradient.
            ValueError: If no layer matches.
        """
        selected = self.select(model)
        graded = {name: [p for p in _own(module) if p.grad is not None] for name, module in selected.items()}
        graded = {name: parameters for name, parameters in graded.items() if parameters}
        if not graded:
            raise NothingMeasuredError(
                f"none of the {len(selected)} selected layers has a gradient: measure after backward() and before "
                "zero_grad(), so the monitor's `at` must hold backward() and end before zero_grad()"
            )
        gradients = _squares([[p.grad for p in parameters] for parameters in graded.values()])
        weights = _squares([[p.detach() for p in parameters] for parameters in graded.values()])
        values: dict[str, dict[str, float]] = {}
        for (name, parameters), gradient, weight in zip(graded.items(), gradients, weights, strict=True):
            if math.isfinite(gradient):
                values[name] = {"norm": math.sqrt(gradient)}
                if 0 < weight < math.inf:
                    values[name]["relative"] = math.sqrt(gradient / weight)
            else:
                bad = sum(int((~_local(p.grad).isfinite()).sum()) for p in parameters)
                values[name] = {"nonfinite": float(bad)}
        return values


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _local(tensor: Any) -> Tensor:
    """The piece of a sharded tensor that lies here, or the tensor."""
    piece: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return piece.coalesce().values() if piece.is_sparse else piece


def _squares(layers: Sequence[Sequence[Any]]) -> list[float]:
    """Sum of squares of each layer's tensors, over all ranks; those that float32 may not hold are taken anew."""
    squares = _sums(layers, torch.float32)
    unsure = [index for index, square in enumerate(squares) if not _LEAST < square < math.inf]
    if unsure:
        again = _sums([layers[index] for index in unsure], torch.float64)
        for index, square in zip(unsure, again, strict=True):
            squares[index] = square
    return squares


def _sums(layers: Sequence[Sequence[Any]], least: torch.dtype) -> list[float]:
    """Sum of squares of each layer's tensors, over all ranks; one transfer from the device.

    Entries are squared in the type `least` or better, and sums over tensors and ranks taken in float64.
    """
    with torch.no_grad():
        sums: list[Tensor] = []
        meshes: dict[tuple[Any, ...], list[tuple[int, Tensor]]] = {}
        for index, tensors in enumerate(layers):
            device = _local(tensors[0]).device
            wide = torch.float32 if device.type == "mps" else torch.float64
            total = torch.zeros((), dtype=wide, device=device)
            for tensor in tensors:
                square = _square(_local(tensor), wide if tensor.dtype == torch.float64 else least, wide)
                sharded = _sharded_dimensions(tensor)
                if sharded:
                    meshes.setdefault((tensor.device_mesh, *sharded), []).append((index, square))
                else:
                    total = total + square
            sums.append(total)
        for (mesh, *dimensions), parts in meshes.items():
            stacked = torch.stack([square for _, square in parts])
            for dimension in dimensions:
                torch.distributed.all_reduce(stacked, group=mesh.get_group(dimension))
            for (index, _), square in zip(parts, stacked, strict=True):
                sums[index] = sums[index] + square
        return torch.stack(sums).tolist()


def _square(tensor: Tensor, squared: torch.dtype, wide: torch.dtype) -> Tensor:
    """The sum of squares of a tensor; a wider type is a copy on a CPU, so it is made of a part at a time."""
    if squared != wide or tensor.dtype == wide:
        norm: Tensor = torch.linalg.vector_norm(tensor, dtype=squared)
        return norm.to(wide).square()
    parts = [torch.linalg.vector_norm(part, dtype=wide) for part in tensor.reshape(-1).split(_PART)]
    total: Tensor = torch.stack(parts).square().sum()
    return total


def _sharded_dimensions(tensor: Any) -> tuple[int, ...]:
    """Dimensions of the mesh over which a tensor is cut in pieces; over the others it is repeated."""
    placements = getattr(tensor, "placements", ())
    return tuple(dimension for dimension, placement in enumerate(placements) if placement.is_shard())
