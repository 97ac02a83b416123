"""A certificate: how much a model can stretch distances, at most."""

import inspect
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from lsdr.layers.operators import is_conv1d
from lsdr.regularizers._lipschitz_aliases import read_after_write
from lsdr.regularizers._lipschitz_functions import Part, Shape, function_constant, product_of, tells_no_values
from lsdr.regularizers._lipschitz_layers import STATEFUL, layer_constant


@dataclass(frozen=True)
class Certificate:
    """What `lipschitz_bound` found."""

    bound: float
    """At least the Lipschitz constant of the model; infinite if nothing is known."""
    per_layer: dict[str, float]
    """That of each layer, with regard to the layer's own input."""
    method: str
    """How it was found."""
    notes: tuple[str, ...]
    """What makes it large, infinite or conditional."""


def lipschitz_bound(
    model: nn.Module, input_shape: Sequence[int] | None = None, constants: Mapping[str, float | int] | None = None
) -> Certificate:
    r"""Bound the Lipschitz constant of a model in evaluation mode, never below a gain that can be measured.

    .. math:: \|f(x) - f(y)\|_2 \le L \, \|x - y\|_2 \quad \text{for all } x, y

    The model is traced (`torch.fx`), and constants are composed along its graph: chains multiply, sums add, so that
    a residual block x + f(x) has 1 + L(f); concatenation adds squares. Layers have

    - linear: the spectral norm, in float64 with its rounding added; convolutions: the least of what is certain for
      them: the norm of the zero-padded operator where it fits as a matrix (1024 inputs or outputs), that on a torus
      into which image and padding fit, and the patch norm times the root of the patches that a pixel is in;
    - activations: their largest slope (SiLU 1.0999, GELU 1.129, sigmoid 1/4, softmax 1/2, else mostly 1);
    - average and max pooling by the windows that a pixel is in; resizing by its matrix in each dimension;
    - batch norm: max(|weight| / sqrt(running variance + eps)). Layer, group, instance and RMS norm divide by the
      sample's own deviation; all that holds for every input is max|weight| / sqrt(eps), 316 for eps = 1e-5.

    Products of functions of the input (attention, gates) have no constant: infinite, with a note. What is written in
    place and read by its older name afterwards is refused; forward hooks are taken to change nothing, and a note names
    their layers. The bound of a deep model is the product of worst cases that do not meet: it grows exponentially with
    depth, so compare layers rather.

    Cost: a decomposition of each layer. Nothing in the model changes.

    Args:
        model: In evaluation mode, with one input that matters; arguments with a default keep it.
        input_shape: Of an input without the batch, such as (3, 32, 32): tightens convolutions, and is needed where
            tensors are added (broadcasting stretches) and images resized.
        constants: Lipschitz constants that you know of submodules, by name; these are not looked into.

    Returns:
        The certificate.

    Raises:
        ValueError: If a layer or a function has no rule, or needs the input's shape; if the model cannot be traced, or
            is in training mode with layers that do something else then.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sigmoid()).requires_grad_(False).eval()
        >>> _ = model[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        >>> lipschitz_bound(model).bound
        0.75
        >>> lipschitz_bound(model).per_layer
        {'0': 3.0, '1': 0.25}
    """
    known = {name: float(value) for name, value in (constants or {}).items()}
    if any(not value >= 0 for value in known.values()):
        raise ValueError(f"constants must not be negative, got {known}")
    module = _unwrapped(model)
    names = dict(module.named_modules())
    unknown = [name for name in known if name not in names]
    if unknown:
        raise ValueError(f"the model has no submodules {unknown}, whose constants were given")
    training = [
        name or type(each).__name__ for name, each in names.items() if isinstance(each, STATEFUL) and each.training
    ]
    if training:
        raise ValueError(f"the certificate is for evaluation, and {training} are in training mode: call model.eval()")
    if not isinstance(module, nn.Sequential) and _is_leaf(module):
        module, known = nn.Sequential(module), {f"0.{name}" if name else "0": value for name, value in known.items()}
    hooked = [
        name or type(each).__name__ for name, each in names.items() if each._forward_hooks or each._forward_pre_hooks
    ]
    walk = _Walk(_trace(module, known), known, input_shape)
    if hooked:
        walk.notes.append(f"hooks of {', '.join(hooked)} are not looked into: it is taken that they change no output")
    bound = walk.run() * (1 + 1e-12)  # the rounding of the composition
    per_layer = walk.per_layer if module is _unwrapped(model) else {"": walk.per_layer["0"]}
    return Certificate(bound, per_layer, "constants composed along the graph, certified in float64", tuple(walk.notes))


class _Walk:
    """Composes constants along a traced model's graph."""

    def __init__(self, traced: fx.GraphModule, known: Mapping[str, float], input_shape: Sequence[int] | None):
        self.per_layer: dict[str, float] = {}
        self.notes: list[str] = []
        self._traced, self._known = traced, known
        self._parts: dict[fx.Node, Part] = {}
        self._shapes = {} if input_shape is None else _shapes(traced, tuple(input_shape))

    def run(self) -> float:
        """Give the constant of the model's output: of all tensors in it together."""
        for node in self._traced.graph.nodes:
            if node.op == "output":
                return math.hypot(*(self._part(each).constant for each in _nodes(node.args)), 0.0)
            self._parts[node] = self._visit(node)
            self._check_in_place(node)
        raise AssertionError("a traced graph ends with its output")

    def _visit(self, node: fx.Node) -> Part:
        shape, value = self._shapes.get(node, (None, None))
        if node.op == "placeholder":
            given = not node.args  # one with a default keeps it, and does not depend on the input
            return Part(float(given), shape, None if given else node.args[0])
        if node.op == "get_attr":
            return Part(0.0, value=_attribute(self._traced, str(node.target)))
        if not any(self._part(each).constant for each in node.all_input_nodes):
            return Part(0.0, shape, self._evaluate(node) if value is None else value)
        if tells_no_values(node):
            return Part(0.0, shape, value)
        if node.op == "call_module":
            return Part(self._layer(node, shape), shape)
        constant, note = function_constant(node, self._part, shape)
        self._note(node.name, note)
        return Part(constant, shape)

    def _layer(self, node: fx.Node, output: Shape) -> float:
        name = str(node.target)
        inputs = [self._part(each) for each in _nodes((node.args, node.kwargs))]
        before = math.hypot(*(each.constant for each in inputs))
        if name in self._known:
            self.per_layer[name] = self._known[name]
        else:
            try:
                self.per_layer[name], note = layer_constant(self._traced.get_submodule(name), inputs[0].shape, output)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from error
            self._note(name, note)
        # A layer of zeros is constant, whatever is before it.
        return product_of(self.per_layer[name], before)

    def _check_in_place(self, node: fx.Node) -> None:
        """Make sure that nobody reads what this node wrote over, unless it stretches no more than what was there."""
        for written, reader in read_after_write(self._traced, node):
            if self._parts[node].constant > self._parts[written].constant:
                raise ValueError(
                    f"node {node.name!r} writes in place what node {reader.name!r} reads afterwards: write to a new "
                    "tensor, or read the result"
                )

    def _evaluate(self, node: fx.Node) -> Any:
        """The value of what does not depend on the input, where it can be had before the model runs."""
        parts = [self._part(each) for each in node.all_input_nodes]
        if node.op != "call_function" or any(each.value is None for each in parts):
            return None
        arguments = fx.node.map_arg(node.args, lambda each: self._parts[each].value)
        keywords = fx.node.map_arg(node.kwargs, lambda each: self._parts[each].value)
        with torch.no_grad():
            return node.target(*arguments, **keywords)  # type: ignore[operator]

    def _part(self, argument: Any) -> Part:
        if isinstance(argument, fx.Node):
            return self._parts[argument]
        return Part(0.0, (), argument)

    def _note(self, name: str, note: str) -> None:
        if note:
            self.notes.append(f"{name}: {note}")


class _Shapes(fx.Interpreter):
    """Runs the graph on zeros, without hooks; keeps shapes, and values that no input is in."""

    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.found: dict[fx.Node, tuple[Shape, Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        tensor = isinstance(result, Tensor)
        self.found[n] = (tuple(result.shape) if tensor else None, None if tensor else result)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.fetch_attr(target).forward(*args, **kwargs)


def _shapes(traced: fx.GraphModule, shape: tuple[int, ...]) -> dict[fx.Node, tuple[Shape, Any]]:
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) != 1:
        raise ValueError(f"input_shape is for models of one input; this one has {[node.name for node in inputs]}")
    like = next(traced.parameters(), torch.zeros(()))
    interpreter = _Shapes(traced)
    with torch.no_grad(), torch.random.fork_rng([]):
        interpreter.run(torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
    return interpreter.found


class _Proxy(fx.Proxy):
    """Records `a += b` as what it is: for `fx.Proxy` it is a = a + b, and other names of a keep their value."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Tracer(fx.Tracer):
    def __init__(self, known: Mapping[str, float]):
        super().__init__()
        self._known = known

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._known or _is_leaf(m)


def _trace(module: nn.Module, known: Mapping[str, float]) -> fx.GraphModule:
    """The model's graph; it shares the model's layers.

    Raises:
        ValueError: If the model cannot be traced.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    try:
        graph = _Tracer(known).trace(module, concrete_args=defaults)
    except Exception as error:
        raise ValueError(
            f"{type(module).__name__} cannot be traced ({type(error).__name__}: {str(error).splitlines()[0]}): bound "
            "its blocks one by one, or name what torch.fx cannot follow, constants={name: its Lipschitz constant}"
        ) from error
    return fx.GraphModule(module, graph)


def _is_leaf(module: nn.Module) -> bool:
    known = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
    return known or isinstance(module, STATEFUL) or is_conv1d(module)


def _nodes(arguments: Any) -> list[fx.Node]:
    """The nodes in nested arguments, as often as they are there."""
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, found.append)
    return found


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        wrapper = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = model.module if wrapper else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _attribute(root: nn.Module, path: str) -> Any:
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name)
    return value
