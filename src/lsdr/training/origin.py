"""Follow non-finite values through a forward and a backward pass back to the operation they came from."""

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jaxtyping
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

# Memory that was never written holds anything; only what is written into it counts.
_UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# add_, __setitem__, __iadd__
_IN_PLACE = re.compile(r"[a-z]\w*_|__(set|i)\w+__")
# Where a finite argument gives infinity by definition, not because the number format ends.
_POLES = {"div", "true_divide", "reciprocal", "rsqrt", "log", "log2", "log10", "log1p", "pow", "tan", "atanh", "logit"}
_POLES |= {"truediv", "rtruediv", "rdiv", "itruediv"}
# Frames between an operation and the line that asked for it: torch, this file, wrappers that check annotations.
_NOT_THE_CALLER = (str(Path(torch.__file__).parent), __file__, str(Path(jaxtyping.__file__).parent), "<")
# Nodes of the graph between a parameter and the operation that uses it.
_RESHAPES = ("TBackward", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "ToCopy")


@dataclass(frozen=True)
class Place:
    """Where an operation ran.

    Attributes:
        operation: Its name, as in `torch`.
        module: Name of the innermost module whose forward called it; None outside the model.
        position: Leaf modules that had finished before it.
        call: Which call of that (leaf) module it was, counted from 1.
        line: File and line that called it, torch's own files left out.
    """

    operation: str
    module: str | None
    position: int
    call: int
    line: str


@dataclass
class Origin:
    """The first non-finite value on the way to a result.

    Attributes:
        place: Where it was made, or first used if it is a parameter's.
        order: Counts origins in the order of execution.
        parameter: Name of the parameter or buffer that holds it, if one does.
        deliberate: An infinity that the code wrote on purpose, as attention masks do.
        given: It was there in a tensor of which this trace did not see the making.
        detail: What came out and of what, in words.
        indices: Positions in the batch that are non-finite, as soon as a tensor with a batch dimension is.
    """

    place: Place
    order: int
    parameter: str | None = None
    deliberate: bool = False
    given: bool = False
    detail: str = ""
    indices: tuple[int, ...] | None = None


class Trace(TorchFunctionMode):
    """Watch every torch operation of a forward pass for the first non-finite value that reaches its result.

    Looking at operations rather than at modules' outputs tells a layer that makes a NaN from one that is handed it by
    a function between layers, and names the line. An origin follows its values from tensor to tensor, so that an
    infinity that never reaches the loss (an attention mask before a softmax) is not blamed. The module is read off
    the Python stack; nothing is registered anywhere. Cost: one reduction an operation, with a synchronisation.

    A function that calls others is seen as one (`layer_norm`, `multi_head_attention_forward`); a custom
    `autograd.Function` is not seen, and what it made is blamed on the operation that uses it.

    Args:
        names: The model's modules by name.
        owned: Its parameters and buffers by name.
        batch: Size of the batch dimension, 0 if unknown.
        finished: Names of leaf modules, appended by the caller as each finishes.
    """

    def __init__(
        self, names: Mapping[str, nn.Module], owned: Mapping[str, Tensor], batch: int, finished: list[str]
    ) -> None:
        super().__init__()
        self.nodes: dict[Node, Place] = {}
        self._names = {module: name for name, module in names.items()}
        self._owned = {_storage(tensor): (name, tensor) for name, tensor in owned.items()}
        self._batch, self._finished = batch, finished
        self._origins: dict[int, Origin] = {}
        self._kept: list[Tensor] = []  # a storage that is freed could come back as another tensor's
        self._static: set[int] = set()  # storages computed from parameters alone, which have no batch dimension
        self._count = 0
        self._outermost: FrameType | None = None

    def run(self, forward: Callable[[], Tensor]) -> Tensor:
        """Call `forward` and watch."""
        self._outermost = sys._getframe()
        try:
            with self:
                return forward()
        finally:
            self._outermost = None

    def origin(self, tensor: Tensor) -> Origin | None:
        """Where the non-finite values of a tensor came from; None if no operation was seen making them."""
        return self._origins.get(_storage(tensor))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what went in and came out."""
        kwargs = kwargs or {}
        given = list(_flatten((args, {key: value for key, value in kwargs.items() if key != "out"})))
        inputs = [value for value in given if isinstance(value, Tensor)]
        name = getattr(func, "__name__", str(func))
        # An operation in place destroys what it was given: look before.
        before = [value for value in inputs if not is_finite(value)] if _IN_PLACE.fullmatch(name) else None
        result = func(*args, **kwargs)
        outputs = inputs[:1] if name == "__setitem__" else [v for v in _flatten(result) if isinstance(v, Tensor)]
        if not outputs or name in _UNWRITTEN:
            return result
        place = self._place(name)
        static = bool(inputs) and all(_storage(v) in self._owned or _storage(v) in self._static for v in inputs)
        for output in outputs:
            (self._static.add if static else self._static.discard)(_storage(output))
            for node in _graph(output, self.nodes):
                self.nodes[node] = place
            if not is_finite(output):
                bad = [value for value in inputs if not is_finite(value)] if before is None else before
                writes_infinity = any(isinstance(value, float) and math.isinf(value) for value in given)
                origin = self._inherit(place, output, inputs, bad, writes_infinity)
                if origin.indices is None and not static:
                    origin.indices = bad_rows(output, self._batch)
                self._origins[_storage(output)] = origin
                self._kept.append(output)
        return result

    def _inherit(
        self, place: Place, output: Tensor, inputs: list[Tensor], bad: list[Tensor], writes_infinity: bool
    ) -> Origin:
        """The origin of an operation's non-finite output: that of what it was given, or the operation itself."""
        has_nan = bool(output.isnan().any())
        sources = [(self._source(place, value), bool(value.isnan().any())) for value in bad]
        # inf - inf apart, a NaN comes of a NaN: a mask added to it is not to blame.
        nans = [source for source, is_nan in sources if is_nan]
        blamed = nans if has_nan and nans else [source for source, _ in sources if not source.deliberate]
        if blamed:
            return min(blamed, key=lambda source: source.order)
        if sources and not has_nan:
            return sources[0][0]
        deliberate = not sources and writes_infinity and not has_nan
        return self._new(place, deliberate=deliberate, detail=_describe(place.operation, output, inputs))

    def _source(self, place: Place, value: Tensor) -> Origin:
        """The origin of a non-finite input, which may be a parameter or have been there before."""
        storage = _storage(value)
        if storage not in self._origins:
            owner, held = self._owned.get(storage, (None, value))
            count = int((~held.isfinite()).sum())
            # Attention masks are kept in buffers, as minus infinity.
            buffer = owner is not None and not isinstance(held, nn.Parameter)
            mask = buffer and bool((held.isfinite() | held.isneginf()).all())
            detail = f"{count} of {held.numel()} values are not finite"
            origin = self._new(place, parameter=owner, deliberate=mask, given=owner is None, detail=detail)
            self._origins[storage] = origin
            self._kept.append(value)
        return self._origins[storage]

    def _new(self, place: Place, **fields: Any) -> Origin:
        self._count += 1
        return Origin(place, self._count, **fields)

    def _place(self, operation: str) -> Place:
        """Read off the Python stack which module and which line is calling."""
        frame: FrameType | None = sys._getframe(1)
        line, module, outside = "", None, False
        while frame is not None and frame is not self._outermost and module is None and not outside:
            if not line and not frame.f_code.co_filename.startswith(_NOT_THE_CALLER):
                line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            # What a hook computes from a layer's output (a regularizer's statistics) is not that layer's doing.
            outside = frame.f_globals.get("__name__") == "lsdr.layers.capture"
            if frame.f_code.co_varnames[:1] == ("self",):
                caller = frame.f_locals.get("self")
                module = self._names.get(caller) if isinstance(caller, nn.Module) else None
            frame = frame.f_back
        call = 1 if module is None else self._finished.count(module) + 1
        return Place(operation.strip("_"), module, len(self._finished), call, line)


def backward_origin(loss: Tensor, parameters: list[Tensor], trace: Trace, batch: int) -> tuple[Origin | None, bool]:
    """Differentiate, and find the first operation that turns a finite gradient into a non-finite one.

    The hooks are on the graph's nodes, where both ends of one operation are seen; they go with the graph, and are
    removed besides. `.grad` is not touched.

    Args:
        loss: Scalar with a graph.
        parameters: What to differentiate by.
        trace: Watched the forward pass that made `loss`.
        batch: Size of the batch dimension, 0 if unknown.

    Returns:
        The origin, and whether the gradient of every parameter is finite.
    """
    found: list[Origin] = []

    def watch(node: Node) -> Callable[[Any, Any], None]:
        name, place = node.name(), trace.nodes.get(node, Place(node.name(), None, 0, 1, ""))
        ranks = [following is not None and not _only_parameters(following) for following, _ in node.next_functions]

        def hook(inputs: Any, outputs: Any) -> None:
            bad = [(g, rank) for g, rank in zip(inputs, ranks, strict=False) if g is not None and not is_finite(g)]
            if bad and not found and all(g is None or is_finite(g) for g in outputs):
                rows = [bad_rows(g, batch) for g, has_batch in bad if has_batch]
                detail = f"{name} turns it into {_kinds(bad[0][0])}"
                found.append(Origin(place, 1, detail=detail, indices=next((r for r in rows if r is not None), None)))

        return hook

    with ExitStack() as handles:
        for node in list(_graph(loss, {})):
            handles.callback(node.register_hook(watch(node)).remove)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    finite = all(is_finite(gradient) for gradient in gradients if gradient is not None)
    return (found[0] if found else None), finite


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; whole numbers always are."""
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(tensor.detach().isfinite().all())


def bad_rows(tensor: Tensor, batch: int) -> tuple[int, ...] | None:
    """Positions along the batch dimension that are not finite; None if the tensor has no such dimension.

    Attention folds its heads into the batch, so a multiple of `batch` counts when there are further dimensions.
    """
    fits = tensor.ndim > 0 and batch > 0 and tensor.shape[0] > 0 and tensor.shape[0] % batch == 0
    if not fits or (tensor.ndim == 1 and tensor.shape[0] != batch):
        return None
    return tuple((~tensor.detach().isfinite()).reshape(batch, -1).any(1).nonzero().flatten().tolist())


def _describe(operation: str, output: Tensor, inputs: list[Tensor]) -> str:
    """What an operation made of its finite inputs."""
    finite = [value.detach()[value.detach().isfinite()] for value in inputs if value.is_floating_point()]
    largest = max((float(value.abs().max()) for value in finite if value.numel()), default=0.0)
    limit, dtype = torch.finfo(output.dtype).max, str(output.dtype).removeprefix("torch.")
    if output.isinf().any() and operation not in _POLES:
        return f"overflowed {dtype} (max {limit:g}); its largest finite input is {largest:.4g}"
    return f"made {_kinds(output)} in {dtype} of finite inputs, the largest {largest:.4g}"


def _kinds(tensor: Tensor) -> str:
    kinds = [word for word, found in (("NaN", tensor.isnan()), ("infinity", tensor.isinf())) if bool(found.any())]
    return " and ".join(kinds)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


def _flatten(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flatten(item)
    else:
        yield value


def _graph(tensor: Tensor, known: Mapping[Node, Any]) -> Iterator[Node]:
    """The nodes of a tensor's graph, those before `known` ones left out."""
    seen: set[Node] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in known and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(following for following, _ in node.next_functions)


def _only_parameters(node: Node) -> bool:
    """Whether the gradient at this node is a parameter's, through views and casts of it."""
    while node.name().startswith(_RESHAPES) and node.next_functions[0][0] is not None:
        node = node.next_functions[0][0]
    return node.name().endswith("AccumulateGrad")
