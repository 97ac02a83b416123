"""Lipschitz constants of the functions between layers, in a traced model."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lsdr.regularizers._lipschitz_layers import layer_constant

Shape = tuple[int, ...] | None


@dataclass(frozen=True)
class Part:
    """What is known of one argument of a function: how it depends on the model's input, its shape, or its value."""

    constant: float
    shape: Shape = None
    value: Any = None


# Largest slopes, or norms of rearrangements.
_SLOPES: dict[Any, float] = {
    **dict.fromkeys([F.relu, torch.relu, "relu", "relu_", F.relu6, torch.tanh, F.tanh, "tanh", torch.abs, "abs"], 1.0),
    **dict.fromkeys([torch.clamp, "clamp", F.hardtanh, torch.sin, "sin", torch.cos, "cos"], 1.0),
    **dict.fromkeys([operator.neg, torch.neg, "neg", operator.getitem, "contiguous", "clone", torch.clone], 1.0),
    **dict.fromkeys([torch.flatten, "flatten", "view", "reshape", torch.reshape, "unflatten", torch.unflatten], 1.0),
    **dict.fromkeys(["permute", torch.permute, "transpose", torch.transpose, "movedim", torch.movedim], 1.0),
    **dict.fromkeys(["squeeze", torch.squeeze, "unsqueeze", torch.unsqueeze, "chunk", torch.chunk], 1.0),
    **dict.fromkeys(["split", torch.split, "detach", "float", "double", "to", F.pixel_shuffle, F.pixel_unshuffle], 1.0),
    **dict.fromkeys([torch.sigmoid, F.sigmoid, "sigmoid"], 0.25),
    **dict.fromkeys([F.softmax, torch.softmax, "softmax"], 0.5),
    F.silu: 1.0998394,
    F.gelu: 1.1289931,
    F.mish: 1.0884982,
    F.hardswish: 1.5,
    F.selu: 1.7580994,
}
_AS_LAYERS: dict[Any, Callable[..., nn.Module]] = {
    F.avg_pool1d: nn.AvgPool1d,
    F.avg_pool2d: nn.AvgPool2d,
    F.avg_pool3d: nn.AvgPool3d,
    F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_avg_pool3d: nn.AdaptiveAvgPool3d,
    F.softplus: nn.Softplus,
    F.interpolate: lambda *settings, antialias=False, **rest: _upsample(antialias, *settings, **rest),
    F.max_pool2d: lambda kernel_size, stride=None, padding=0, dilation=1, **rest: nn.MaxPool2d(
        kernel_size, stride, padding, dilation
    ),
}
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUBTRACT = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_MULTIPLY = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_DIVIDE = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_JOIN = (torch.cat, torch.concat, torch.stack)
# Of what `tensor.name` reads: the tensor itself in another order, or what says nothing of its values.
_SAME, _FACTS = ("T", "mT", "H", "mH", "data", "real"), ("shape", "ndim", "dtype", "device")
_AVERAGE, _SUM = (torch.mean, "mean"), (torch.sum, "sum")
_PRODUCTS = (operator.matmul, torch.matmul, torch.bmm, torch.einsum, "matmul", "bmm", F.scaled_dot_product_attention)


def function_constant(node: fx.Node, part: Callable[[Any], Part], output: Shape) -> tuple[float, str]:
    """A Lipschitz constant of a node of the graph with regard to the model's input.

    Args:
        node: A function or a method, at least one of its arguments dependent on the input.
        part: What is known of an argument.
        output: Shape of the node's result, None if it is unknown.

    Returns:
        The constant, infinite if there is none, and a remark or "".

    Raises:
        ValueError: If there is no rule for it, or its rule needs shapes.
    """
    target: Any = node.target
    keywords: dict[str, Any] = dict(node.kwargs)
    operands = [keywords.pop(name) for name in ("input", "tensors", "other") if name in keywords]
    given: tuple[Any, ...] = (*node.args, *operands)
    if target in _JOIN:
        return math.hypot(*(part(each).constant for each in given[0])), ""
    arguments = [part(each) for each in (*given, *keywords.values())]
    first = arguments[0]
    dependent = [each for each in arguments if each.constant]
    if target in _ADD + _SUBTRACT:
        second = arguments[1].constant * abs(float(keywords.get("alpha", 1)))
        return first.constant * _repeated(node, first, output) + second * _repeated(node, arguments[1], output), ""
    product = target in _MULTIPLY + _DIVIDE and len(dependent) > 1
    if target in _PRODUCTS or product or (target in _DIVIDE and arguments[1].constant):
        return math.inf, f"{_name(node)} multiplies or divides functions of the input: it has no Lipschitz constant"
    if target in _DIVIDE and keywords.get("rounding_mode"):
        raise ValueError(f"{_name(node)} rounds, so that it jumps: it has no Lipschitz constant")
    if target in _MULTIPLY + _DIVIDE:
        (other,) = [each for each in arguments[:2] if not each.constant]
        factor = _largest(node, other.value)
        if target in _DIVIDE:
            factor = 1 / factor if factor else math.inf
        return product_of(dependent[0].constant, factor * _repeated(node, dependent[0], output)), ""
    if not first.constant or len(dependent) > 1:
        raise ValueError(
            f"{_name(node)} (node {node.name!r}) has a rule only where its first argument alone depends on the input"
        )
    if target is F.leaky_relu:
        slope = given[1] if len(given) > 1 else keywords.get("negative_slope", 0.01)
        return first.constant * max(1.0, abs(slope)), ""
    if target is F.elu:
        alpha = given[1] if len(given) > 1 else keywords.get("alpha", 1.0)
        return first.constant * max(1.0, abs(alpha)), ""
    if target is F.dropout:
        if keywords.get("training", given[2] if len(given) > 2 else True):
            raise ValueError("F.dropout is traced as in training; call model.eval() and pass training=self.training")
        return first.constant, ""
    if target is F.pad:
        mode = given[2] if len(given) > 2 else keywords.get("mode", "constant")
        if mode == "constant":
            return first.constant, ""
    if target in _AVERAGE + _SUM:
        if first.shape is None or output is None:
            raise ValueError(f"the constant of {_name(node)} depends on shapes: give input_shape")
        count = math.prod(first.shape) / max(math.prod(output), 1)
        return first.constant * (count**-0.5 if target in _AVERAGE else count**0.5), ""
    if target in _AS_LAYERS:
        layer = _AS_LAYERS[target](*given[1:], **{key: value for key, value in keywords.items() if key != "input"})
        constant, note = layer_constant(layer, first.shape, output)
        return first.constant * constant, note
    if target is operator.getitem and not _slices(given[1]):
        raise ValueError(f"indices of {_name(node)} (node {node.name!r}) may repeat entries: take ints and slices")
    if target is getattr and given[1] in _SAME:
        return first.constant, ""
    if target == "to" and any(
        isinstance(e, torch.dtype) and not e.is_floating_point for e in (*given, *keywords.values())
    ):
        raise ValueError(f"{_name(node)} (node {node.name!r}) rounds, so that it jumps: it has no Lipschitz constant")
    if target in _SLOPES:
        return first.constant * _SLOPES[target], ""
    raise ValueError(
        f"there is no rule for {_name(node)} (node {node.name!r}): use a module with a rule, or name the submodule "
        "that holds it, constants={name: its Lipschitz constant}"
    )


def tells_no_values(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its shape or the like, which does not depend on what is in it."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.target is getattr and node.args[1] in _FACTS


def product_of(first: float, second: float) -> float:
    """The product of two constants: 0 times whatever is constant, and so 0; what is not a number bounds nothing."""
    product = first * second if first and second else 0.0
    return math.inf if math.isnan(product) else product


def _upsample(antialias: bool, *settings: Any, **rest: Any) -> nn.Module:
    if antialias:
        raise ValueError("interpolate(antialias=True) has no rule")
    return nn.Upsample(*settings, **rest)


def _slices(index: Any) -> bool:
    """Whether an index takes each entry once at most."""
    if isinstance(index, tuple):
        return all(map(_slices, index))
    return index is None or index is Ellipsis or isinstance(index, int | slice)


def _repeated(node: fx.Node, part: Part, output: Shape) -> float:
    """How much broadcasting stretches an argument."""
    if not part.constant:
        return 1.0
    scalars = [each for each in node.args if isinstance(each, int | float)]
    if scalars:
        return 1.0
    if part.shape is None or output is None:
        raise ValueError(f"{_name(node)} may repeat its arguments (broadcasting): give input_shape")
    return math.sqrt(math.prod(output) / max(math.prod(part.shape), 1))


def _largest(node: fx.Node, value: Any) -> float:
    if isinstance(value, int | float):
        return abs(float(value))
    if isinstance(value, Tensor):
        by = value.detach().double().abs()
        return float(by.amin() if node.target in _DIVIDE else by.amax())
    raise ValueError(f"{_name(node)} takes a factor whose value is not known before the model runs: give input_shape")


def _name(node: fx.Node) -> str:
    target = node.target
    return f"method {target}()" if isinstance(target, str) else getattr(target, "__name__", str(target))
