"""The attached side of `SpectralPenalty`: singular values with their gradient."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.operators import Size, layer_operator
from lsdr.layers.weight import read_weight
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.sliding_kernel import SlidingKernel
from lsdr.regularizers._largest import gram_of_blocks, largest_of_blocks, largest_of_operator
from lsdr.regularizers.spectral_penalties import Shape

_CONVOLVE: dict[type[nn.Module], Any] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
_TRANSPOSE: dict[type[nn.Module], Any] = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}
_CONVOLUTIONS = (*_CONVOLVE, *_TRANSPOSE)
# Of the norm of a zero-padded convolution. The gradient is as good as the vector, which is less good than the value.
_TOLERANCE = 1e-4


class SpectralPenaltyTerm:
    """The penalty of one attached `SpectralPenalty`."""

    def __init__(
        self, layers: Mapping[str, nn.Module], shape: Shape, weight: float, size: Size | Mapping[str, Size] | None
    ):
        self.values: dict[str, Tensor] = {}
        self._layers, self._shape, self._weight, self._size = dict(layers), shape, weight, size
        self._vectors: dict[str, Tensor] = {}
        self._seed = 0
        self._live: list[None] = []
        self._observer: Any = None
        self._observed = self._used = 0
        for name, module in layers.items():
            try:
                read_weight(module)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from error

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give the weighted mean over layers, this call's share of it; the context is not needed."""
        spectra: dict[str, Tensor] = {}
        broken: list[str] = []
        for name, module in self._layers.items():
            weight: Any = module.weight
            weight = weight.float() if weight.dtype.itemsize < 4 else weight
            with torch.autocast(weight.device.type, enabled=False):
                found = self._spectrum(name, module, weight)
            if found is None:
                broken.append(name)
            else:
                spectra[name] = found
        penalties = dict(zip(spectra, self._shape.function(list(spectra.values())), strict=True)) if spectra else {}
        first = next(iter(penalties.values()), torch.zeros(()))
        parts = {name: first.new_tensor(math.nan) if name in broken else penalties[name] for name in self._layers}
        self.values = {name: part.detach() for name, part in parts.items()}
        total = self._weight * self._share() * torch.stack([part.to(first) for part in parts.values()]).mean()
        # A zero gradient adds nothing but can change the layout in which sums are taken, and so the last bit.
        return total if self._weight else total.detach()

    def ran(self) -> None:
        """Note that the model ran; traced by `torch.compile`, so it only puts a mark aside."""
        if self._observer is not None:
            self._observer()
        elif torch.is_grad_enabled():
            self._live.append(None)

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Count the forwards within, among which the next calls share the penalty; see `Penalty.observe`."""
        self.forget()
        # A graph break, in the first pass alone; counting is no work for the model's compiler.
        self._observer = torch.compiler.disable(self._count)
        try:
            yield
        finally:
            self._observer = None

    def observed(self) -> int:
        """Count the observed forwards that no call has used yet."""
        return self._observed - self._used

    def forget(self) -> None:
        """Let go of what was counted."""
        self._live.clear()
        self._observed = self._used = 0

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors that the next measurement starts from: of zero-padded convolutions only."""
        state = {f"vectors/{name}": vectors for name, vectors in self._vectors.items()}
        return state | {"seed": torch.tensor(self._seed)} if state else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of other layers.
        """
        foreign = state.keys() - {"seed"} - {f"vectors/{name}" for name in self._layers}
        if foreign:
            raise ValueError(f"the state is of another spectral penalty: entries {sorted(foreign)} do not fit")
        self._seed = int(state.get("seed", 0))
        self._vectors = {name: state[f"vectors/{name}"].clone() for name in self._layers if f"vectors/{name}" in state}

    def _count(self) -> None:
        self._observed += 1

    def _share(self) -> float:
        """The part of the observed forwards that this call is for."""
        live = max(len(self._live), 1)
        self._live.clear()
        if not self._observed:
            return 1.0
        share = live / self._observed
        self._used += live
        if self._used >= self._observed:
            self._observed = self._used = 0
        return share

    def _spectrum(self, name: str, module: nn.Module, weight: Tensor) -> Float[Tensor, "k"] | None:
        """The singular values that the penalty looks at, with a graph where it can be positive; None if not finite."""
        stored = weight.detach()
        if self._size is not None and isinstance(module, _CONVOLUTIONS):
            self._seed += 1
            size = self._size.get(name) if isinstance(self._size, Mapping) else self._size
            operator = layer_operator(module, "zero_padded", size, weight=stored)
            largest, vectors = largest_of_operator(operator, self._vectors.get(name), _TOLERANCE, seed=self._seed)
            if vectors is not None:
                self._vectors[name] = vectors
            if not math.isfinite(largest):
                return None
            if largest <= self._shape.free:
                return stored.new_tensor([largest])
            vector = _leading(operator.matrix()) if vectors is None else vectors[0]
            assert isinstance(operator, SlidingKernel)
            pixels = operator.positions if operator.transposed else operator.image
            image = vector.to(weight).view(1, -1, *pixels)
            norm: Tensor = torch.linalg.vector_norm(_apply(module, weight, image))
            return norm[None]
        groups = module.groups if isinstance(module, _CONVOLUTIONS) else 1
        blocks = weight.unflatten(0, (groups, -1)).flatten(2)
        if self._shape.free:
            largest = float(largest_of_blocks(blocks.detach(), 1e-6))
            if not math.isfinite(largest):
                return None
            if largest <= self._shape.free:
                return stored.new_tensor([largest])
        return _values(blocks, self._shape.full)


def _values(blocks: Float[Tensor, "g m n"], full: bool) -> Float[Tensor, "k"] | None:
    r"""Singular values with the gradient u v': norms of W'u with the short side's vectors u held fixed."""
    wide = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
    with full_precision(blocks.device):
        gram = gram_of_blocks(wide.detach())
        if not bool(gram.isfinite().all()):
            return None
        values, vectors = torch.linalg.eigh(gram)
    vectors = vectors.to(wide.device, wide.dtype)
    if not full:
        block = int(values[:, -1].argmax())
        norms: Tensor = torch.linalg.vector_norm(vectors[block, :, -1] @ wide[block])[None]
    else:
        norms = torch.linalg.vector_norm(vectors.mT @ wide, dim=-1).flatten()
    return norms.sort(descending=True).values


def _leading(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "n"]:
    with full_precision(matrix.device):
        right: Tensor = torch.linalg.svd(matrix.double(), full_matrices=False).Vh
        return right[0]


def _apply(module: nn.Module, weight: Tensor, image: Tensor) -> Tensor:
    """A convolution without its bias and without its hooks."""
    settings: tuple[str, ...]
    if isinstance(module, tuple(_TRANSPOSE)):
        function = next(each for kind, each in _TRANSPOSE.items() if isinstance(module, kind))
        settings = ("stride", "padding", "output_padding", "groups", "dilation")
    else:
        function = next(each for kind, each in _CONVOLVE.items() if isinstance(module, kind))
        settings = ("stride", "padding", "dilation", "groups")
    applied: Tensor = function(image, weight, None, **{name: getattr(module, name) for name in settings})
    return applied
