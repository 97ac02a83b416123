"""Lipschitz constants of layers, none below the truth."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.operators import is_conv1d
from lsdr.layers.weight import read_weight
from lsdr.linalg.certify import certified_norm
from lsdr.linalg.circular import circular_singular_values
from lsdr.linalg.convolution import Convolution
from lsdr.linalg.sliding_kernel import SlidingKernel
from lsdr.regularizers.activation_standardization import ActivationStandardization

Shape = tuple[int, ...] | None

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_SAMPLE_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_ADAPTIVE_AVERAGE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
STATEFUL = (*_BATCH_NORMS, *_INSTANCE_NORMS, *_DROPOUTS, ActivationStandardization)
"""Layers that do something else in training."""

# The largest slopes, rounded up: GELU at sqrt(2), 1/2 (1 + erf(1)) + 1 / (e sqrt(pi)).
_ACTIVATIONS: dict[type[nn.Module], float] = {
    nn.Identity: 1.0,
    nn.ReLU: 1.0,
    nn.ReLU6: 1.0,
    nn.Hardtanh: 1.0,
    nn.Tanh: 1.0,
    nn.Softsign: 1.0,
    nn.Softplus: 1.0,
    nn.LogSigmoid: 1.0,
    nn.Sigmoid: 0.25,
    nn.Hardsigmoid: 1 / 6,
    nn.SiLU: 1.0998394,
    nn.GELU: 1.1289931,
    nn.Mish: 1.0884982,
    nn.Hardswish: 1.5,
    nn.SELU: 1.7580994,
    nn.Softmax: 0.5,
    nn.Softmax2d: 0.5,
    nn.Flatten: 1.0,
    nn.Unflatten: 1.0,
    nn.PixelShuffle: 1.0,
    nn.PixelUnshuffle: 1.0,
    nn.ZeroPad1d: 1.0,
    nn.ZeroPad2d: 1.0,
    nn.ZeroPad3d: 1.0,
}
# Convolutions as matrices up to so many inputs or outputs; Fourier transforms up to so many operations.
_DENSE, _FOURIER = 1024, 2e10


def layer_constant(module: nn.Module, shape: Shape, output: Shape) -> tuple[float, str]:
    """A Lipschitz constant of a layer, for the Euclidean norm.

    Args:
        module: The layer, in evaluation mode.
        shape: Of its input with a batch of one, None if it is unknown.
        output: Of its output.

    Returns:
        The constant, infinite if there is none, and a remark or "".

    Raises:
        ValueError: If there is no rule for the layer, or its rule needs shapes.
    """
    if isinstance(module, nn.Linear) or is_conv1d(module):
        return certified_largest(read_weight(module)[None]), ""
    if isinstance(module, CONVOLUTIONS + TRANSPOSED):
        return _convolution(module, shape), ""
    if isinstance(module, nn.Softplus) and module.threshold < 20:
        raise ValueError(f"Softplus(threshold={module.threshold}) jumps there: it has no Lipschitz constant below 20")
    if type(module) in _ACTIVATIONS:
        return _ACTIVATIONS[type(module)], ""
    if isinstance(module, _DROPOUTS):
        return 1.0, ""
    if isinstance(module, nn.LeakyReLU):
        return max(1.0, abs(module.negative_slope)), ""
    if isinstance(module, nn.PReLU):
        return max(1.0, float(module.weight.detach().abs().max())), ""
    if isinstance(module, nn.ELU | nn.CELU):
        return max(1.0, abs(module.alpha) if isinstance(module, nn.ELU) else 1.0), ""
    if isinstance(module, (*_BATCH_NORMS, *_INSTANCE_NORMS, *_SAMPLE_NORMS)):
        return _norm(module)
    if isinstance(module, ActivationStandardization):
        return float(1 / module.deviation().min()), ""
    if isinstance(module, nn.MultiheadAttention):
        return math.inf, "attention multiplies functions of its input: it has no Lipschitz constant"
    return _pooling(module, shape, output), ""


def certified_largest(blocks: Float[Tensor, "g m n"]) -> float:
    """Upper bound of the largest singular value over blocks; infinite if they are not finite."""
    if not bool(blocks.isfinite().all()):
        return math.inf
    bounds = [certified_norm(block).upper for block in blocks]
    return max(float(bound) for bound in bounds if bound is not None)


def multiplicity(kernel: int, stride: int, dilation: int = 1) -> int:
    """In how many windows a pixel is, at most: taps t with d t equal modulo s."""
    return math.ceil(kernel * math.gcd(stride, dilation) / stride)


def kernel_multiplicity(module: nn.Module) -> int:
    """In how many patches of a convolution a pixel is, at most; more where the padding repeats pixels."""
    assert isinstance(module, CONVOLUTIONS + TRANSPOSED)
    total = 1
    for kernel, stride, dilation in zip(module.kernel_size, module.stride, module.dilation, strict=True):
        total *= multiplicity(kernel, stride, dilation)
        if module.padding_mode == "replicate":
            total *= 1 + 2 * dilation * (kernel - 1) if isinstance(module.padding, str) else 1 + 2 * max(module.padding)
        elif module.padding_mode != "zeros":
            total *= 3
    return total


def _convolution(module: nn.Module, shape: Shape) -> float:
    assert isinstance(module, CONVOLUTIONS + TRANSPOSED)
    weight = read_weight(module)
    patch = certified_largest(weight.unflatten(0, (module.groups, -1)).flatten(2))
    bounds = [math.sqrt(kernel_multiplicity(module)) * patch]
    if shape is not None and weight.isfinite().all():
        operator = Convolution(
            weight,
            shape[-len(module.kernel_size) :],
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            groups=module.groups,
            transposed=isinstance(module, TRANSPOSED),
            output_padding=module.output_padding,
            padding_mode=module.padding_mode,
        )
        if min(operator.shape) <= _DENSE:
            wide = operator.to_float64()
            few = wide.shape[0] <= wide.shape[1]
            unit = torch.eye(min(wide.shape), dtype=torch.float64, device=wide.device)
            # A product in float64 has an error of its own, of the kernel's size at most.
            bounds.append(certified_largest((wide.adjoint(unit) if few else wide.matvec(unit))[None]) * (1 + 1e-12))
        elif operator.edges == "zeros":
            bounds += _torus_bound(operator)
    return min(bounds)


def _torus_bound(operator: SlidingKernel) -> list[float]:
    """The norm on a torus so large that the image, its padding and every patch fit: the operator is a part of it."""
    sizes = []
    for n, p, seen, s in zip(operator.image, operator.before, operator.seen, operator.stride, strict=True):
        sizes.append(s * math.ceil(max(n + p, seen) / s))
    few, many = sorted(operator.weight.shape[:2])
    if math.prod(sizes) * few * few * many > _FOURIER:
        return []
    size = [n // s for n, s in zip(sizes, operator.stride, strict=True)] if operator.transposed else sizes
    spectrum = circular_singular_values(
        operator.weight,
        size,
        stride=operator.stride,
        dilation=operator.dilation,
        groups=operator.groups,
        transposed=operator.transposed,
        precision="float32",
    )
    assert spectrum.upper is not None
    return [float(spectrum.upper.max())]


def _norm(module: nn.Module) -> tuple[float, str]:
    running = getattr(module, "running_var", None)
    if isinstance(running, Tensor):
        deviations = (running.double() + float(module.eps)).sqrt()  # type: ignore[arg-type]
        weight: Any = module.weight
        scale = torch.ones_like(deviations) if weight is None else weight.detach().double().abs()
        return float((scale / deviations).max()), ""
    if isinstance(module, _BATCH_NORMS):
        raise ValueError("a batch norm without running statistics mixes the samples of a batch: it has no constant")
    gamma: Any = module.weight
    eps: Any = module.eps
    if eps is None:  # RMSNorm's default
        raise ValueError("RMSNorm(eps=None) takes eps from the type of its input: give it a number")
    name = type(module).__name__
    largest = 1.0 if gamma is None else float(gamma.detach().abs().max())
    return largest / math.sqrt(eps), (
        f"{name} divides by the sample's own deviation: its constant max|weight| / sqrt(eps) is that of a constant "
        "input, far above what other inputs see"
    )


def _pooling(module: nn.Module, shape: Shape, output: Shape) -> float:
    if isinstance(module, _AVERAGE_POOLS + _MAX_POOLS):
        dimensions = (
            1 + next(k for k, each in enumerate((*_AVERAGE_POOLS, *_MAX_POOLS)) if isinstance(module, each)) % 3
        )
        kernel, stride, padding = (
            _each(value, dimensions) for value in (module.kernel_size, module.stride, module.padding)
        )
        dilation = _each(getattr(module, "dilation", 1), dimensions)
        windows = math.prod(multiplicity(k, s, d) for k, s, d in zip(kernel, stride, dilation, strict=True))
        if isinstance(module, _MAX_POOLS):
            return math.sqrt(windows)
        divisor = getattr(module, "divisor_override", None)
        if divisor:
            return math.sqrt(windows * math.prod(kernel)) / abs(float(divisor))
        if module.ceil_mode:  # the last windows hang over the edge and hold as little as a pixel
            return math.sqrt(windows)
        if module.count_include_pad:
            return math.sqrt(windows / math.prod(kernel))
        return math.sqrt(windows / math.prod(max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)))
    if isinstance(module, (*_ADAPTIVE_AVERAGE, nn.Upsample)):
        if (
            isinstance(module, _ADAPTIVE_AVERAGE)
            and shape is None
            and module.output_size in (1, (1,), (1, 1), (1, 1, 1))
        ):
            return 1.0
        if shape is None or output is None:
            raise ValueError(f"the constant of {type(module).__name__} depends on the image size: give input_shape")
        return _resize(module, shape[2:], output[2:])
    raise ValueError(
        f"there is no rule for {type(module).__name__}: give its Lipschitz constant, constants={{name: value}}"
    )


def _resize(module: nn.Module, sizes: tuple[int, ...], output: tuple[int, ...]) -> float:
    dimensions = len(sizes)
    total = 1.0
    for axis, (before, after) in enumerate(zip(sizes, output, strict=True)):
        if isinstance(module, nn.Upsample):
            matrix = _upsampling(module, dimensions, axis, before, after)
        else:
            matrix = F.adaptive_avg_pool1d(torch.eye(before, dtype=torch.float64)[:, None], after)[:, 0]
        total *= certified_largest(matrix[None])
    return total


def _upsampling(module: nn.Upsample, dimensions: int, axis: int, before: int, after: int) -> Float[Tensor, "a b"]:
    """What an interpolation does in one dimension, by its value for unit vectors."""
    shape = [before, 1] + [1] * dimensions
    shape[2 + axis] = before
    size, scale = [1] * dimensions, [1.0] * dimensions
    size[axis] = after
    scale[axis] = _each(module.scale_factor, dimensions)[axis] if module.scale_factor is not None else 1.0
    image = F.interpolate(
        torch.eye(before, dtype=torch.float64).view(shape),
        size=size if module.scale_factor is None else None,
        scale_factor=None if module.scale_factor is None else scale,
        mode=module.mode,
        align_corners=module.align_corners,
        recompute_scale_factor=module.recompute_scale_factor,
    )
    return image.reshape(before, after)


def _each(value: object, dimensions: int) -> tuple:  # type: ignore[type-arg]
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dimensions
