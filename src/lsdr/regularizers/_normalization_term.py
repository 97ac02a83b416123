"""The attached side of `SpectralNormalization`: measure, then scale."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.operators import Size, layer_operator
from lsdr.linalg.parallel import each_layer
from lsdr.regularizers._adapter_normalization_term import AdapterNormalizationTerm
from lsdr.regularizers._gains import Gains
from lsdr.regularizers._largest import SMALL, largest_of_blocks, largest_of_operator

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Each attempt aims as far below as the last one was above; rounding to bfloat16 takes two or three.
_ATTEMPTS = 100
_LARGE = 1e30


class NormalizationTerm:
    """What an attached `SpectralNormalization` remembers; as a penalty it is zero."""

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        bounds: Mapping[str, float],
        size: Size | Mapping[str, Size] | None,
        soft: bool,
        learnable: bool,
        tolerance: float,
        adapters: AdapterNormalizationTerm | None = None,
    ):
        self.values: dict[str, Tensor] = {}
        self.measured: dict[str, float] = {}
        """The norms that the last projection found, before it scaled."""
        self.gains: Gains | None = None
        self._layers = dict(layers)
        self._adapters = adapters
        for name, module in layers.items():
            _plain_weight(name, module)
        self._bounds, self._size, self._soft, self._tolerance = dict(bounds), size, soft, tolerance
        self._vectors: dict[str, Tensor] = {}
        self._seed = 0
        # The mark that the last projection left a layer with, and its norm then.
        self._left: dict[str, tuple[float, float]] = {}
        with torch.no_grad():
            if learnable:
                self._check_untied()
                norms = self._measure(list(self._layers))
                initial = {name: min(norm, self._bounds[name]) for name, norm in norms.items()}
                self.gains = Gains(self._layers, {k: v if math.isfinite(v) else 0.0 for k, v in initial.items()})
            self._scale()

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Nothing is added to the loss."""
        if not self._layers:
            assert self._adapters is not None
            return self._adapters()
        return torch.zeros((), device=self._weight(next(iter(self._layers))).device)

    def parameters(self) -> list[nn.Parameter]:
        """The learned gains, for an optimiser; empty if the gain is fixed."""
        return [] if self.gains is None else list(self.gains.parameters.values())

    def project_(self) -> None:
        """Scale the layers.

        Raises:
            RuntimeError: If gains are to be learned and no optimiser holds them.
        """
        if self.gains is not None:
            self.gains.check_optimized()
        if self._adapters is not None:
            self._adapters.project_()
        self._scale()

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Nothing is collected from forward passes."""
        yield

    def observed(self) -> int:
        """Nothing is."""
        return 0

    def forget(self) -> None:
        """Nothing is kept from forward passes."""

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors that the next measurement starts from, what need not be measured again, and the gains."""
        state = {f"vectors/{name}": vectors for name, vectors in self._vectors.items()}
        if self._vectors:
            state["seed"] = torch.tensor(self._seed)
            state |= {f"left/{name}": torch.tensor(left, dtype=torch.float64) for name, left in self._left.items()}
        if self.gains is not None:
            state |= {f"gain/{name}": gain.detach() for name, gain in self.gains.parameters.items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of other layers or of another kind of gain.
        """
        gains = {} if self.gains is None else self.gains.parameters
        wanted = {f"gain/{name}" for name in gains}
        known = wanted | {"seed"} | {f"{kind}/{name}" for kind in ("vectors", "left") for name in self._layers}
        if not wanted <= state.keys() <= known:
            differing = sorted((wanted - state.keys()) | (state.keys() - known))
            raise ValueError(f"the state is of another spectral normalization: entries {differing} do not fit")
        self._seed = int(state.get("seed", 0))
        self._vectors = {
            name: state[f"vectors/{name}"].to(self._weight(name).device, copy=True)
            for name in self._layers
            if f"vectors/{name}" in state
        }
        self._left = {
            name: (float(mark), float(norm))
            for name in self._layers
            for mark, norm in [state.get(f"left/{name}", self._left.get(name, (math.nan, math.nan)))]
        }
        with torch.no_grad():
            for name, gain in gains.items():
                gain.copy_(state[f"gain/{name}"])

    @torch.no_grad()
    def _scale(self) -> None:
        marks = self._marks(list(self._layers))
        known = {name: norm for name, (mark, norm) in self._left.items() if marks.get(name) == mark}
        measured = self._measure([name for name in self._layers if name not in known])
        found = {name: known[name] if name in known else measured[name] for name in self._layers}
        left = dict(found)
        self.measured = found | (self._adapters.measured if self._adapters is not None else {})
        scaled: set[int] = set()
        for name, norm in found.items():
            if id(self._weight(name)) in scaled:  # shared with a layer before: no longer what was measured
                norm = left[name] = self._measure([name])[name]
            if not (math.isfinite(norm) and norm > 0):
                continue
            target = self._target(name, norm)
            slack = self._tolerance / 2
            if norm > target * (1 + slack) or (norm < target * (1 - slack) and not self._soft):
                self._scale_layer(name, norm, target)
                scaled.add(id(self._weight(name)))
                left[name] = target
        marks |= self._marks([name for name in self._layers if id(self._weight(name)) in scaled])
        self._left = {name: (marks[name], norm) for name, norm in left.items() if name in marks}

    def _marks(self, names: list[str]) -> dict[str, float]:
        """The sums of the weights' absolute values, by which it is seen whether a layer has changed since.

        Where two players train in turns, most weights have not. A change that rounding hides from the sum, of some
        1e-6 of the weights, is far below any tolerance; further ones add up until they are seen. `Tensor._version`
        would miss what fused optimisers write, and whoever writes to `weight.data`, and would not survive a checkpoint.
        Weights in half precision and sharded ones have no mark and are always measured.
        """
        sums: dict[torch.device, dict[str, Tensor]] = {}
        for name in names:
            weight = self._weight(name).detach()
            if weight.dtype.itemsize >= 4 and not hasattr(weight, "full_tensor"):
                sums.setdefault(weight.device, {})[name] = torch.linalg.vector_norm(weight, 1).double()
        return {
            name: mark
            for each in sums.values()
            for name, mark in zip(each, torch.stack(list(each.values())).tolist(), strict=True)
        }

    def _weight(self, name: str) -> nn.Parameter:
        """A layer's weight as it is now: `fully_shard` and `load_state_dict(assign=True)` put another in its place."""
        return _plain_weight(name, self._layers[name])

    def _check_untied(self) -> None:
        owners: dict[int, str] = {}
        for name in self._layers:
            owner = owners.setdefault(id(self._weight(name)), name)
            if owner != name:
                raise ValueError(
                    f"layers {owner!r} and {name!r} share a weight, which has one norm to learn: leave one out"
                )

    def _target(self, name: str, norm: float) -> float:
        bound = self._bounds[name]
        if self.gains is None:
            return bound
        gain = self.gains.parameters[name]
        value = float(gain.detach())
        if value == 0:  # a layer that was zeros until now: its first norm is its gain
            value = norm
        # A gain that an optimiser takes to zero or beyond would end there: no gradient leads back.
        value = min(max(value, self._tolerance * min(norm, bound)), bound)
        gain.detach().fill_(value)
        return value

    def _scale_layer(self, name: str, norm: float, target: float) -> None:
        weight = _local(self._weight(name))
        if weight.dtype.itemsize >= 4 and target / norm < _LARGE:
            weight.mul_(target / norm)
            return
        # Factors beyond float32, for weights that are next to nothing, would make them infinite.
        original = weight.float() if target / norm < _LARGE else weight.double()
        aim = target
        for _ in range(_ATTEMPTS):
            weight.copy_(original * (aim / norm))
            (found,) = self._measure([name]).values()
            if found <= target * (1 + self._tolerance / 2):
                return
            aim *= target / found
        raise RuntimeError(
            f"layer {name!r}: rounding to {weight.dtype} keeps its norm above {target:g}, last {found:g}; "
            "allow a larger tolerance or keep the weights in float32"
        )

    def _measure(self, names: list[str]) -> dict[str, float]:
        """The layers' norms: those of matrices together with one synchronisation."""
        found: dict[str, float] = {}
        blocks: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        largest = partial(largest_of_blocks, tolerance=self._tolerance)
        for name in names:
            module, weight = self._layers[name], _full(self._weight(name))
            if self._size is None or not isinstance(module, _CONVOLUTIONS):
                groups = module.groups if isinstance(module, _CONVOLUTIONS) else 1
                block = weight.unflatten(0, (groups, -1)).flatten(2)
                if hasattr(self._weight(name), "full_tensor"):  # gathered: measured at once, to be let go of
                    values[name] = largest(block)
                else:
                    blocks[name] = block
                continue
            self._seed += 1
            size = self._size.get(name) if isinstance(self._size, Mapping) else self._size
            operator = layer_operator(module, "zero_padded", size, weight=weight)
            found[name], vectors = largest_of_operator(
                operator, self._vectors.get(name), self._tolerance, seed=self._seed
            )
            if vectors is not None:
                self._vectors[name] = vectors
        for device in {each.device for each in blocks.values()}:
            here = {name: each for name, each in blocks.items() if each.device == device}
            large = {name: each for name, each in here.items() if each.numel() > SMALL}
            values |= dict(zip(large, each_layer(largest, large.values(), device), strict=True))
            values |= {name: largest(each) for name, each in here.items() if name not in large}
        for device in {each.device for each in values.values()}:
            there = {name: each for name, each in values.items() if each.device == device}
            found |= dict(zip(there, torch.stack(list(there.values())).tolist(), strict=True))
        return {name: found[name] for name in names}


def _plain_weight(name: str, module: nn.Module) -> nn.Parameter:
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim < 2:
        why = "is parametrized" if hasattr(module, "parametrizations") else "has no weight of two dimensions or more"
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) {why}, so there is none to scale in place: leave it out, or "
            "remove the parametrization with torch.nn.utils.parametrize.remove_parametrizations"
        )
    if weight.is_meta or not weight.numel() or not weight.is_floating_point():
        raise ValueError(f"layer {name!r}: a weight of {weight.dtype} on {weight.device} cannot be scaled")
    return weight


def _full(weight: Tensor) -> Tensor:
    """All of a weight, gathered if it is sharded."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight.detach()


def _local(weight: Tensor) -> Tensor:
    """The part of a weight that is here, to be changed in place."""
    return weight.to_local() if hasattr(weight, "to_local") else weight.detach()
