"""Features of chosen layers, collected between two calls of a penalty."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention)
_CHANNELS_SECOND = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm)


class Features:
    """What a term receives from its layers' hooks, and hands out layer by layer.

    Gradients matter here, so features of forwards without them (sampling) are left out, unless they are observed on
    purpose.
    """

    def __init__(self, layers: dict[str, nn.Module]):
        self.layers = layers
        self._outputs: dict[str, list[tuple[Tensor, int | None]]] = {name: [] for name in layers}
        self._ran_without_gradient: dict[str, bool] = {}
        self._observer: Callable[[str, Tensor], None] | None = None

    def receive(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Take a layer's output; traced by `torch.compile`, so it only puts it aside."""
        if self._observer is not None:
            self._observer(name, output)
        elif torch.is_grad_enabled():
            version = None if torch.compiler.is_compiling() else output._version
            self._outputs[name].append((output, version))
        else:
            self._ran_without_gradient[name] = True

    def take(self, held: Collection[str] = ()) -> dict[str, list[Tensor]]:
        """Hand out every layer's outputs since the last call and forget them.

        Args:
            held: Players, children of the model, that do not move now: their layers are left out.

        Raises:
            RuntimeError: If a layer has none, or if one was changed in place since.
        """
        taken = {name: list(outputs) for name, outputs in self._outputs.items() if name.split(".")[0] not in held}
        ran_without_gradient = set(self._ran_without_gradient)
        self.clear()
        silent = [name for name, outputs in taken.items() if not outputs]
        if silent:
            raise RuntimeError(_no_feature(silent, ran_without_gradient))
        for name, outputs in taken.items():
            if any(version not in (None, output._version) for output, version in outputs):
                raise RuntimeError(
                    f"the output of layer {name!r} was changed in place by a later operation (such as ReLU with "
                    "inplace=True), so its features are lost; select the later layer or make it not in place"
                )
        if taken and not any(output.requires_grad for outputs in taken.values() for output, _ in outputs):
            raise RuntimeError(
                f"no feature of the layers {list(taken)} depends on a parameter that is trained, so the penalty can "
                "change nothing; unfreeze parameters or select layers behind trained ones"
            )
        return {name: [output for output, _ in outputs] for name, outputs in taken.items()}

    def clear(self) -> None:
        """Forget what was received."""
        for outputs in self._outputs.values():
            outputs.clear()
        self._ran_without_gradient.clear()

    @contextmanager
    def observed_by(self, observer: Callable[[str, Tensor], None]) -> Iterator[None]:
        """Send the outputs to an observer instead."""
        self.clear()
        # A graph break, in the first pass alone; statistics are no work for the model's compiler.
        self._observer = torch.compiler.disable(observer)
        try:
            yield
        finally:
            self._observer = None


def channels_second(output: Tensor, module: nn.Module, channel_dim: int | None, name: str) -> Float[Tensor, "n d p"]:
    """Order a feature as samples, channels, positions; in float32 at least.

    Channels are dimension 1 (images, videos, pooled vectors) but the last for tokens, that is three dimensions, and
    for what linear layers and layer norms return; 1-d convolutions, batch and group norms have them second again.

    Raises:
        TypeError: If the output is not of real floating point.
        ValueError: If it has fewer than two dimensions, or not the channel dimension that was asked for.
    """
    if not output.is_floating_point():
        raise TypeError(f"layer {name!r} returned {output.dtype}; features must be real floating point")
    if output.ndim < 2:
        raise ValueError(f"layer {name!r} returned shape {tuple(output.shape)}; features need samples and channels")
    if channel_dim is None:
        last = isinstance(module, _CHANNELS_LAST) or (output.ndim == 3 and not isinstance(module, _CHANNELS_SECOND))
        channel_dim = output.ndim - 1 if last else 1
    elif not -output.ndim < channel_dim < output.ndim or channel_dim % output.ndim == 0:
        raise ValueError(
            f"layer {name!r} returned shape {tuple(output.shape)}; channel_dim={channel_dim} is not one of its "
            "dimensions after the first, which holds the samples"
        )
    if output.dtype in (torch.float16, torch.bfloat16):
        output = output.float()
    return output.unsqueeze(-1).movedim(channel_dim % output.ndim, 1).flatten(2)  # with a position where there is none


def _no_feature(silent: list[str], ran_without_gradient: set[str]) -> str:
    """Say why no feature came from some layers, and what to do."""
    if ran_without_gradient.issuperset(silent):
        return (
            f"the layers {silent} ran only without gradients since the last call of the penalty; call the penalty "
            "after a training forward, outside torch.no_grad(), and use gradient checkpointing with use_reentrant=False"
        )
    return (
        f"no output of the layers {silent} arrived since the last call of the penalty. Run the model between two "
        "calls. If it did run, it was compiled and called before the regularizer was attached (torch.compile leaves "
        "out hooks added later): attach before its first call, or call torch.compiler.reset() after attaching. A layer "
        "that the forward never uses must not be selected"
    )
