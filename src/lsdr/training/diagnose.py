"""Name the layer behind a step in trouble, by replaying the step."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.layers.select import select_layers
from lsdr.probes.weights import WEIGHTED, weight_statistics
from lsdr.training.guard import Trouble
from lsdr.training.origin import Origin, Trace, backward_origin, bad_rows, is_finite

Direction = Literal["parameter", "input", "forward", "backward", "loss"]

_NEIGHBOURS = 2
_GROWTH = 10.0
_NOTABLE = 1.5  # growth below this tells nothing: two healthy batches differ as much
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class Finding:
    """Where a step's trouble came from.

    Attributes:
        module: Name of the layer: the one that made the bad value ("forward", "backward"), holds it ("parameter") or
            met it first ("input"). "loss" if it arose after the model, empty if the replay shows nothing.
        direction: What went wrong there.
        message: The same in words, with the operation, its line and the magnitudes.
        indices: Positions in the batch that are affected, as far as they can be told apart.
        spectra: Largest singular value, stable rank and effective rank of the weights of the layer and its neighbours
            in the order of execution; of a weight that is not finite, the number of such values instead.
    """

    module: str
    direction: Direction
    message: str
    indices: tuple[int, ...]
    spectra: dict[str, dict[str, float | None]]

    def to_event(self, step: int, trouble: Trouble, action: str, names: Sequence[str] = ()) -> dict[str, Any]:
        """The record for events.jsonl.

        Args:
            step: The step in trouble.
            trouble: What the guard saw.
            action: What was done about it.
            names: What a person calls the affected examples.
        """
        return {
            **trouble.to_event(action),
            "step": step,
            "module": self.module,
            "direction": self.direction,
            "indices": list(self.indices),
            "names": list(names),
            "message": f"{trouble.message}: {self.message}",
            "spectra": self.spectra,
        }


def diagnose(
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    reference: Callable[[], Tensor] | None = None,
    inputs: Mapping[str, Tensor],
    average: nn.Module | None = None,
) -> Finding:
    """Find the layer that made a step's loss or gradient non-finite, or its loss spike.

    Replays the step under watch. In this order: a batch that is not finite; the first parameter or buffer, operation
    of a layer, or operation outside the layers from which a non-finite value reaches the loss; the first operation,
    going backward, that makes a non-finite gradient of a finite one; and if all is finite, the layer whose output grew
    most against a healthy step, the first in the order of execution that grew tenfold, or the one where the gradient
    grew tenfold beyond its growth at the model's output.

    Parameters, buffers, `.grad`, random state and `training` flags are left as they were and no hook stays, also if
    the replay raises. Compiled models run uncompiled. Cost: a forward and backward pass with a synchronisation an
    operation, a copy of the trained weights in host memory, five singular value decompositions; one more pass for a
    spike.

    Operations are watched rather than modules' outputs, so what a composite module computes between its layers is told
    from the layers. Gradient checkpointing must be the non-reentrant kind.

    Source: none; nearest is the anomaly detection of torch, which names a line but neither module nor samples.

    Args:
        model: The model, not wrapped for distributed training: ranks may replay different passes.
        forward: Replays the step exactly (same batch, same random numbers, autocast included) and returns its loss.
        reference: The same for a healthy step; needed to explain a spike.
        inputs: The tensors of the batch by name, batch dimension first.
        average: A copy of the model with averaged weights, with which the healthy step is replayed. Without it a spike
            that comes of the weights, which a healthy batch shares, shows nothing.

    Returns:
        The finding; with an empty module if the replay is healthy.

    Raises:
        ValueError: If `forward` does not return a scalar.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> with torch.no_grad():
        ...     _ = model[2].weight[0, 1].fill_(torch.nan)
        >>> batch = torch.ones(3, 2)
        >>> finding = diagnose(model, lambda: model(batch).square().mean(), inputs={"batch": batch})
        >>> finding.module, finding.direction, finding.indices
        ('2', 'parameter', (0, 1, 2))
        >>> finding.message
        '2.weight: 1 of 2 values are not finite'
    """
    batch = next((len(value) for value in inputs.values() if value.ndim), 0)
    with _unchanged(model), _eager(), torch.enable_grad(), _replay(model, forward, batch) as replay:
        for name, value in inputs.items():
            if not is_finite(value):
                return _of_input(replay, name, value)
        if not is_finite(replay.loss):
            return _of_forward(replay)
        origin, all_finite = backward_origin(replay.loss, replay.parameters, replay.trace, batch)
        if not all_finite:
            return _of_backward(replay, origin)
        if reference is None:
            return _nothing("the step is finite when it is run again, and there is no healthy one to compare it with")
        weights = nullcontext() if average is None else _weights_of(model, average)
        with weights, _replay(model, reference, batch) as healthy:
            backward_origin(healthy.loss, healthy.parameters, healthy.trace, batch)
        return _of_growth(replay, healthy)


@dataclass(frozen=True)
class _Replay:
    """A step that was run again: its loss and what was seen on the way.

    `finished` lists the leaf modules in the order of execution; `outputs` and `gradients` hold, by name and call, the
    root mean square of each sample's part, shape (B,), or of the whole, shape (1,).
    """

    modules: dict[str, nn.Module]
    parameters: list[Tensor]
    trace: Trace
    loss: Tensor
    finished: list[str]
    outputs: dict[tuple[str, int], Tensor]
    gradients: dict[tuple[str, int], Tensor]


@contextmanager
def _replay(model: nn.Module, forward: Callable[[], Tensor], batch: int) -> Iterator[_Replay]:
    named = select_layers(model, lambda name, module: True)
    modules = {name or type(module).__name__: module for name, module in named.items()}
    leaves = {
        name: module
        for name, module in modules.items()
        if not any(module.children()) and not isinstance(module, _CONTAINERS)
    }
    owned = {
        f"{name}.{own}": tensor
        for name, module in modules.items()
        for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    }
    finished: list[str] = []
    outputs: dict[tuple[str, int], Tensor] = {}
    gradients: dict[tuple[str, int], Tensor] = {}
    trace = Trace(modules, owned, batch, finished)
    with ExitStack() as handles:

        def receive(name: str, module: nn.Module, output: Tensor) -> None:
            key = (name, finished.count(name) + 1)
            finished.append(name)
            outputs[key] = _root_mean_square(output, batch)
            if output.requires_grad:
                handle = output.register_hook(lambda g: gradients.update({key: _root_mean_square(g, batch)}))
                handles.callback(handle.remove)

        with capture(model, leaves, receive):
            loss = trace.run(forward)
        if loss.numel() != 1:
            raise ValueError(f"forward must return the scalar loss, got a tensor of shape {tuple(loss.shape)}")
        parameters: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        yield _Replay(modules, parameters, trace, loss, finished, outputs, gradients)


def _nothing(message: str) -> Finding:
    return Finding("", "loss", message, (), {})


def _of_input(replay: _Replay, name: str, value: Tensor) -> Finding:
    """The batch is not finite; the layer is the first it reached."""
    indices = bad_rows(value, len(value)) if value.ndim else None
    first = _first_reached(replay)
    samples = f" at position {_list(indices)} of the batch" if indices else ""
    message = (
        f"the batch is not finite before the model sees it: {name!r}{samples}; {first} is the first layer it reached"
    )
    return Finding(first, "input", message, indices or (), _spectra(replay, first, _position(replay, first)))


def _of_forward(replay: _Replay) -> Finding:
    """The loss is not finite: a parameter, a layer, or what surrounds the model."""
    origin = replay.trace.origin(replay.loss)
    if origin is None:
        return Finding("loss", "loss", "the loss is not finite, by an operation that torch does not show", (), {})
    place, first = origin.place, _first_reached(replay)
    indices = origin.indices or ()
    if origin.parameter is not None:
        # A parametrized weight is held by a module of its own, which is no layer.
        module = origin.parameter.rpartition(".")[0].partition(".parametrizations.")[0]
        message = f"{origin.parameter}: {origin.detail}"
        return Finding(module, "parameter", message, indices, _spectra(replay, module, place.position))
    operation = f"`{place.operation}`{_call(replay, origin)}"
    line = f" ({place.line})" if place.line else ""
    what = f"was given a tensor in which {origin.detail}" if origin.given else origin.detail
    if place.module is not None:
        message = f"{operation} in {place.module} {what}{line}"
        return Finding(place.module, "forward", message, indices, _spectra(replay, place.module, place.position))
    if first:
        message = f"{operation} before the model {what}{line}; {first} is the first layer it reached"
        return Finding(first, "input", message, indices, _spectra(replay, first, _position(replay, first)))
    message = f"every layer's output is finite, but {operation} in the loss {what}{line}"
    return Finding("loss", "loss", message, indices, _spectra(replay, "", place.position))


def _of_backward(replay: _Replay, origin: Origin | None) -> Finding:
    """The loss is finite and a gradient is not."""
    if origin is None:
        return Finding("loss", "backward", "a gradient is not finite, by an operation that torch does not show", (), {})
    place, indices = origin.place, origin.indices or ()
    line = f" ({place.line})" if place.line else ""
    where = "the loss" if place.module is None else place.module
    message = (
        f"the gradient is finite at the output of `{place.operation}`{_call(replay, origin)} in {where} and not at its "
        f"input: {origin.detail}{line}"
    )
    return Finding(place.module or "loss", "backward", message, indices, _spectra(replay, where, place.position))


def _of_growth(replay: _Replay, healthy: _Replay) -> Finding:
    """All is finite: the layer that grew against a healthy step."""
    outputs = _growth(replay.outputs, healthy.outputs)
    key = next((key for key, growth in outputs.items() if growth > _GROWTH), None)
    if key is None:
        # A larger loss makes all gradients larger: what counts is growth on the way back.
        gradients = _growth(replay.gradients, healthy.gradients)
        base = next(iter(gradients.values()), 1.0)
        grown = next((key for key, growth in gradients.items() if growth > _GROWTH * max(base, 1.0)), None)
        if grown is not None:
            message = (
                f"the gradient at the output of {grown[0]} is {gradients[grown]:.3g} times that of a healthy step, "
                f"where at the model's output it is {base:.3g} times"
            )
            return _finding_of_growth(replay, grown, "backward", message, replay.gradients)
        key = max(outputs, key=lambda key: outputs[key], default=None)
        if key is None or outputs[key] < _NOTABLE:
            losses = f"loss {replay.loss.item():.4g} against {healthy.loss.item():.4g}"
            return _nothing(f"no layer's output or gradient differs in scale from that of a healthy step ({losses})")
    rank = "the first layer that grew tenfold" if outputs[key] > _GROWTH else "more than any other layer"
    message = f"the output of {key[0]} is {outputs[key]:.3g} times that of a healthy step, {rank}"
    return _finding_of_growth(replay, key, "forward", message, replay.outputs)


def _finding_of_growth(
    replay: _Replay, key: tuple[str, int], direction: Direction, message: str, scales: dict[tuple[str, int], Tensor]
) -> Finding:
    samples = scales[key]
    large = samples > _GROWTH * samples.median()
    indices = tuple(large.nonzero().flatten().tolist())
    if indices:
        message += f"; it comes of position {_list(indices)} of the batch"
    return Finding(key[0], direction, message, indices, _spectra(replay, key[0], _position(replay, key[0])))


def _growth(now: dict[tuple[str, int], Tensor], before: dict[tuple[str, int], Tensor]) -> dict[tuple[str, int], float]:
    """By how much each scale grew; layers that were silent before (zero-initialised ones) have no growth."""
    pairs = {key: (_total(value), _total(before[key])) for key, value in now.items() if key in before}
    return {key: new / old for key, (new, old) in pairs.items() if old > 0}


def _total(samples: Tensor) -> float:
    return float(samples.square().mean().sqrt())


def _root_mean_square(tensor: Tensor, batch: int) -> Tensor:
    per_sample = tensor.ndim > 1 and tensor.shape[0] == batch
    rows = tensor.detach().reshape(batch if per_sample else 1, -1)
    rows = rows.to(torch.float32 if rows.device.type == "mps" else torch.float64)  # squares overflow in less
    return rows.square().mean(1).sqrt()


def _first_reached(replay: _Replay) -> str:
    """The first layer with a non-finite output, or the empty string."""
    return next((name for (name, _), scale in replay.outputs.items() if not is_finite(scale)), "")


def _position(replay: _Replay, module: str) -> int:
    return replay.finished.index(module) if module in replay.finished else len(replay.finished)


def _call(replay: _Replay, origin: Origin) -> str:
    """Which of several calls of a layer it was."""
    calls = replay.finished.count(origin.place.module or "")
    return f" (call {origin.place.call} of {calls})" if calls > 1 else ""


def _list(indices: Sequence[int]) -> str:
    return ", ".join(str(index) for index in indices[:8]) + (", ..." if len(indices) > 8 else "")


def _spectra(replay: _Replay, culprit: str, position: int) -> dict[str, dict[str, float | None]]:
    """Spectra of the culprit's weights and of the layers run before and after it."""
    layers = {name: module for name, module in replay.modules.items() if isinstance(module, WEIGHTED)}
    others = [(k, name) for k, name in enumerate(replay.finished) if name in layers and name != culprit]
    before = list(dict.fromkeys(name for k, name in reversed(others) if k < position))[:_NEIGHBOURS]
    after = list(dict.fromkeys(name for k, name in others if k >= position and name not in before))[:_NEIGHBOURS]
    own = [culprit] if culprit in layers else []
    return {name: weight_statistics(layers[name]) for name in (*reversed(before), *own, *after)}


@contextmanager
def _weights_of(model: nn.Module, other: nn.Module) -> Iterator[None]:
    """Let the model compute with the weights of a copy of it."""
    own = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        for (parameter, _), replacement in zip(own, other.parameters(), strict=True):
            parameter.data = replacement.data
        yield
    finally:
        for parameter, data in own:
            parameter.data = data


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Put back what running the model may change: buffers, normalised weights, training flags, random state."""
    modules = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module, _ in modules
        for name, buffer in module.named_buffers(recurse=False)
    ]
    # Not the frozen ones: a model that normalises them as it runs did so in the step already, and a base can be large.
    parameters = [(p, p.detach().to("cpu", copy=True)) for p in model.parameters() if p.requires_grad]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            # Version counters do not tell: batch normalisation changes its statistics behind their back.
            for module, name, buffer, value in buffers:
                buffer.copy_(value)
                module._buffers[name] = buffer
            for parameter, value in parameters:
                if not torch.equal(parameter.cpu(), value):
                    parameter.copy_(value)
        for module, training in modules:
            module.training = training


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled models uncompiled, so that modules and operations are seen."""
    # Importing the compiler takes seconds; if nobody has, nothing is compiled.
    with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
        yield
