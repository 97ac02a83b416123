"""What an attached `AdapterNormalization` remembers, and how it scales."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.weight import read_weight
from lsdr.regularizers._adapter_factors import Adapter, read_adapters
from lsdr.regularizers._adapter_norms import Norm, delta_norms, matrix_norm

# How far above its bound a norm may be, relatively: some roundings of float32.
SLACK = 1e-6
# Each attempt aims as far below as the last one was above; rounding to bfloat16 takes a few.
_ATTEMPTS = 100


class AdapterNormalizationTerm:
    """Holds the deltas of adapted layers; as a penalty it is zero."""

    def __init__(self, layers: Mapping[str, nn.Module], bounds: Mapping[str, float], norm: Norm, relative: bool):
        self.values: dict[str, Tensor] = {}
        self.measured: dict[str, float] = {}
        """The norms that the last projection found, before it scaled."""
        self._layers, self._bounds = dict(layers), dict(bounds)
        self._norm, self._relative = norm, relative
        self._bases: dict[int, tuple[Tensor, int, float]] = {}
        self.project_()

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Nothing is added to the loss."""
        device = next((p.device for module in self._layers.values() for p in module.parameters()), torch.device("cpu"))
        return torch.zeros((), device=device)

    @torch.no_grad()
    def project_(self) -> None:
        """Scale the factors of every delta that is above its bound.

        Raises:
            RuntimeError: If rounding keeps one above it.
        """
        adapters = read_adapters(self._layers)
        if any(adapter.trained for adapter in adapters.values()):  # what is frozen was there before
            adapters = {name: adapter for name, adapter in adapters.items() if adapter.trained}
        self.measured = self._norms(adapters)
        targets = {name: self._target(name, adapter) for name, adapter in adapters.items()}
        above = _above(self.measured, targets)
        originals = {name: [_wide(factor) for factor in adapters[name].factors] for name in above}
        aims = {name: targets[name] for name in above}
        found = self.measured
        for _ in range(_ATTEMPTS):
            if not above:
                return
            for name in above:
                _scale(adapters[name].factors, originals[name], aims[name] / self.measured[name])
            # Read anew: where factors are multiplied out the deltas are copies.
            found = self._norms({name: each for name, each in read_adapters(self._layers).items() if name in above})
            above = _above(found, targets)
            aims |= {name: aims[name] * targets[name] / found[name] for name in above}
        name = above[0]
        raise RuntimeError(
            f"layer {name!r}: rounding to {adapters[name].factors[0].dtype} keeps the norm of its delta above "
            f"{targets[name]:g}, last {found[name]:g}; keep the factors in float32"
        )

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
        """Empty: norms are measured anew each time."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If there is something in it.
        """
        if state:
            raise ValueError(f"the state is of another regularizer: entries {sorted(state)} do not fit")

    def _norms(self, adapters: Mapping[str, Adapter]) -> dict[str, float]:
        return delta_norms({name: adapter.delta for name, adapter in adapters.items()}, self._norm)

    def _target(self, name: str, adapter: Adapter) -> float:
        layer = name if name in self._bounds else name.rpartition(" (")[0]
        bound = self._bounds[layer]
        return bound * self._base_norm(layer, adapter.base) if self._relative else bound

    def _base_norm(self, name: str, base: nn.Module) -> float:
        """Of the adapted weight: measured once, and again when it has been changed."""
        weight = read_weight(base)
        known, version, norm = self._bases.get(id(base), (None, -1, math.nan))
        if known is None or known.data_ptr() != weight.data_ptr() or version != weight._version:
            norm = matrix_norm(weight.flatten(1), self._norm)
            self._bases[id(base)] = weight, weight._version, norm
        if not (math.isfinite(norm) and norm > 0):
            raise ValueError(
                f"layer {name!r}: a bound relative to the base needs a base of finite norm above zero, and its norm is "
                f"{norm}: leave the layer out, or give a bound that is not relative"
            )
        return norm


def _above(norms: Mapping[str, float], targets: Mapping[str, float]) -> list[str]:
    """Names of what is to be scaled; what is not finite is left for the training loop to notice."""
    return [name for name, norm in norms.items() if math.isfinite(norm) and norm > targets[name] * (1 + SLACK)]


def _wide(factor: nn.Parameter) -> Tensor:
    return factor.detach().to(torch.float64 if factor.dtype == torch.float64 else torch.float32, copy=True)


def _scale(factors: tuple[nn.Parameter, ...], originals: list[Tensor], ratio: float) -> None:
    """Scale factors evenly, so that their product is `ratio` times that of the originals."""
    each = ratio ** (1 / len(factors))
    for factor, original in zip(factors, originals, strict=True):
        factor.detach().copy_(original * each)
