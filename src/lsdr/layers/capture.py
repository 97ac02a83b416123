"""Watch layers' outputs while a model runs: the only place in LSDR that registers hooks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.select import Layers, select_called

Receive = Callable[[str, nn.Module, Tensor], None]
ReceiveCall = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], None]

# How many contexts of `unreported` are open. A list, for the compiler guards what it reads of a module's globals.
_UNREPORTED = [0]


@contextmanager
def unreported() -> Iterator[None]:
    """Run a watched model without a word to those who watch it: for passes that are not part of what they look at.

    Whoever begins to watch within the context is told. A penalty that runs the model again, at disturbed inputs, must
    not have those features taken for the training's.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3))
        >>> with capture(model, "0", lambda name, module, output: print(name)), unreported():
        ...     _ = model(torch.zeros(4, 2))
    """
    _UNREPORTED[0] += 1
    try:
        yield
    finally:
        _UNREPORTED[0] -= 1


@contextmanager
def capture(
    model: nn.Module,
    layers: Layers | Mapping[str, nn.Module],
    receive: Receive,
    refuse: Callable[[str, str], None] | None = None,
) -> Iterator[dict[str, nn.Module]]:
    """Call `receive(name, module, output)` whenever a selected layer has run; no hook is left on leaving.

    The output arrives as the layer returned it, with its graph; of a tuple, a list, a dict or a diffusers output the
    first tensor is taken. A layer run again by non-reentrant gradient checkpointing during the backward pass is not
    reported again. Nothing is reported for containers that are never called (`ModuleList`); they are not selected.

    With `torch.compile`, enter before the compiled model's first call: hooks added later are silently not compiled
    in, and what waits for them must notice that none came.

    Args:
        model: The model to watch, plain, compiled or wrapped.
        layers: As for `select_layers`, or layers selected already, by name.
        receive: Called with the layer's name, the layer and its output. Under `torch.compile` it is traced, so keep
            it to plain Python and tensor operations.
        refuse: Called with the layer's name and the reason where an output holds no tensor; None raises.

    Yields:
        The selected layers by name.

    Raises:
        ValueError: If no layer matches.
        TypeError: In the forward pass, if a layer's output holds no tensor and nothing is to `refuse` it.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with capture(model, "0", lambda name, module, output: print(name, tuple(output.shape))):
        ...     _ = model(torch.zeros(4, 2))
        0 (4, 3)
    """
    selected = dict(layers) if isinstance(layers, Mapping) else select_called(model, layers)
    with ExitStack() as handles:
        for name, module in selected.items():
            handles.callback(module.register_forward_hook(_hook(name, receive, refuse)).remove)
        yield selected


@contextmanager
def capture_calls(modules: Mapping[str, nn.Module], receive: ReceiveCall) -> Iterator[None]:
    """Call `receive(name, module, arguments, keywords)` whenever a module has run; otherwise as `capture`.

    For what a module computes from its inputs without a layer of its own, as `nn.MultiheadAttention` its queries.

    Args:
        modules: Modules by name.
        receive: Called with the module's name, the module, and what it was called with.
    """
    depth = _UNREPORTED[0]

    def hook(name: str, module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> None:
        if not _is_silent(depth):
            receive(name, module, arguments, keywords)

    with ExitStack() as handles:
        for name, module in modules.items():
            handle = module.register_forward_hook(
                lambda module, arguments, keywords, output, name=name: hook(name, module, arguments, keywords),
                with_kwargs=True,
            )
            handles.callback(handle.remove)
        yield


def _hook(
    name: str, receive: Receive, refuse: Callable[[str, str], None] | None
) -> Callable[[nn.Module, Any, Any], None]:
    depth = _UNREPORTED[0]

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if _is_silent(depth):
            return
        feature = _first_tensor(output)
        if feature is not None:
            receive(name, module, feature)
        elif refuse is not None:
            refuse(name, f"returned {type(output).__name__} without a tensor")
        else:
            raise TypeError(f"layer {name!r} returned {type(output).__name__} without a tensor; select another layer")

    return hook


def _is_silent(depth: int) -> bool:
    if _UNREPORTED[0] > depth:
        return True
    # A graph task runs only within a backward pass: there, a forward is checkpointing's recomputation of one that was
    # reported before. The compiler cannot trace the question, and compiled code recomputes without hooks.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _first_tensor(output: Any) -> Tensor | None:
    """Find the feature in what a layer returned: the first tensor."""
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return next((found for item in items if (found := _first_tensor(item)) is not None), None)
