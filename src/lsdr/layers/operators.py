"""A layer of a model as the linear operator that it applies."""

from collections.abc import Sequence
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lsdr.layers.tuners import adapter_operators, is_adapted
from lsdr.layers.weight import read_weight
from lsdr.linalg.block_diagonal import Grouped
from lsdr.linalg.circular import Circular
from lsdr.linalg.combine import Sum
from lsdr.linalg.convolution import Convolution
from lsdr.linalg.dense import Dense
from lsdr.linalg.operator import Adjoint, LinearOperator

Kind = Literal["reshape", "circular", "zero_padded"]
Size = int | Sequence[int]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def layer_operator(
    module: nn.Module, operator: Kind = "reshape", size: Size | None = None, *, weight: Tensor | None = None
) -> LinearOperator:
    """The linear operator of a layer, without a copy of its weight where the weight is stored as it is used.

    For a linear layer or an embedding the three kinds are the same: the weight of shape (out, in), for an embedding
    (entries, width). The transposed storage of transformers' `Conv1D` is read as such. For a convolution they differ:

    - "reshape": the map from one input patch to one output pixel, the kernel flattened to (out, in * kernel). It
      needs no image size. Its norm is at most that of the convolution, which is at most sqrt(kernel size) times it.
    - "circular": the convolution of a periodic image of the given size, with the layer's stride and dilation.
    - "zero_padded": the convolution of an image of the given size as the layer applies it, with its own padding: of
      zeros nearly always, and of what its `padding_mode` says where that is something else.

    Groups are blocks: the operator is block diagonal, so its norm is the greatest over the groups. A transposed
    convolution is the adjoint of an ordinary one, so of its "reshape" too: (out * kernel, in). Layers adapted by peft
    (LoRA, LoHa, LoKr; the active adapters) or by diffusers' own LoRA layers are the sum of the base and of its
    factors; only the other two operators of an adapted convolution multiply the factors out, into one kernel.

    Args:
        module: `Linear`, `Embedding`, a convolution, transformers' `Conv1D`, one of these parametrized, adapted, or
            compiled or wrapped on its own; of other layers with a `weight`, "reshape" takes it as a matrix.
        operator: Which of the three; see above.
        size: Size of the layer's input image, for "circular" and "zero_padded" of a convolution: an int for all
            dimensions, or one for each.
        weight: Taken in place of the layer's own, in its shape: a moving average, a gradient, a difference.

    Returns:
        The operator; nothing of the layer has changed.

    Raises:
        ValueError: If `size` is missing or does not fit the layer, or the weight cannot be read (see `read_weight`)
            or is not a matrix at all (`Bilinear`, `MultiheadAttention`).

    Example:
        >>> layer_operator(nn.Conv2d(3, 8, 3, stride=2, padding=1))
        Dense(8 x 27, float32)
        >>> layer_operator(nn.Conv2d(3, 8, 3, stride=2, padding=1), "zero_padded", size=16).shape
        (512, 768)
    """
    if operator not in ("reshape", "circular", "zero_padded"):
        raise ValueError(f"operator must be 'reshape', 'circular' or 'zero_padded', got {operator!r}")
    module = _unwrapped(module)
    _refuse(module)
    if weight is None and is_adapted(module):
        return _adapted(module, operator, size)
    stored = read_weight(module) if weight is None else weight.detach()
    if isinstance(module, _CONVOLUTIONS + _TRANSPOSED):
        return _convolution(module, stored, operator, size)
    if is_conv1d(module):
        return Adjoint(Dense(stored))
    if operator != "reshape" and stored.ndim > 2:
        raise ValueError(
            f"{type(module).__name__} is not a convolution of torch.nn, so its stride and padding are unknown: "
            'use operator="reshape", or lsdr.linalg.convolution.Convolution with what you know of it'
        )
    return Dense(stored)


def is_conv1d(module: nn.Module) -> bool:
    """Whether this is transformers' `Conv1D`: a linear layer whose weight is stored as (in, out)."""
    return _is(module, "Conv1D", "transformers.")


def _is(module: nn.Module, name: str, package: str) -> bool:
    """Whether a class of that name is among the module's; without importing the package, which may not be there."""
    return any(each.__name__ == name and each.__module__.startswith(package) for each in type(module).__mro__)


def _unwrapped(module: nn.Module) -> nn.Module:
    while True:
        inner = module.module if isinstance(module, _WRAPPERS) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _refuse(module: nn.Module) -> None:
    if isinstance(module, nn.Bilinear):
        raise ValueError(
            "Bilinear is linear in each input, not in both: its weight (out, in1, in2) is no matrix. Fix one input: "
            "torch.einsum('oij,j->oi', layer.weight, x2) is the matrix of the other"
        )
    if isinstance(module, nn.MultiheadAttention):
        raise ValueError(
            "MultiheadAttention holds several matrices: take them with lsdr.layers.attention_modules."
            "attention_projections(layer), each as an operator with lsdr.linalg.dense.Dense"
        )


def _adapted(module: nn.Module, operator: Kind, size: Size | None) -> LinearOperator:
    base, deltas = adapter_operators(module, lambda layer, delta: layer_operator(layer, weight=delta))
    kernel = read_weight(base)
    if not deltas:
        return layer_operator(base, operator, size, weight=kernel)
    if operator == "reshape" or not isinstance(base, _CONVOLUTIONS + _TRANSPOSED):
        return Sum(layer_operator(base, weight=kernel), *deltas)
    for delta in deltas:
        kernel = kernel + delta.matrix().reshape(kernel.shape).to(kernel.dtype)
    return layer_operator(base, operator, size, weight=kernel)


def _convolution(module: nn.Module, weight: Tensor, operator: Kind, size: Size | None) -> LinearOperator:
    assert isinstance(module, _CONVOLUTIONS + _TRANSPOSED)
    transposed = isinstance(module, _TRANSPOSED)
    if operator == "reshape":
        matrix = Dense(weight) if module.groups == 1 else Grouped(weight, module.groups)
        return Adjoint(matrix) if transposed else matrix
    spatial = _spatial(module, operator, size)
    if operator == "circular":
        return Circular(
            weight, spatial, stride=module.stride, dilation=module.dilation, groups=module.groups, transposed=transposed
        )
    return Convolution(
        weight,
        spatial,
        stride=module.stride,
        padding=cast(Any, module.padding),
        dilation=module.dilation,
        groups=module.groups,
        transposed=transposed,
        output_padding=module.output_padding if transposed else 0,
        padding_mode=cast(Any, module.padding_mode),
    )


def _spatial(module: nn.Module, operator: Kind, size: Size | None) -> tuple[int, ...]:
    dimensions = len(module.kernel_size)  # type: ignore[arg-type]
    example = (32,) * dimensions
    if size is None:
        raise ValueError(
            f"{operator!r} depends on the size of the layer's input image: give it, such as size={example} for "
            f'{type(module).__name__}, or use operator="reshape", which needs none'
        )
    spatial = (size,) * dimensions if isinstance(size, int) else tuple(size)
    if len(spatial) != dimensions or any(each < 1 for each in spatial):
        raise ValueError(
            f"size must be a positive int or {dimensions} of them for {type(module).__name__}, such as {example}, "
            f"got {size!r}"
        )
    return spatial
