"""The largest singular values of many layers, followed while training changes the weights."""

import math
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.block_power import block_power_step, ritz
from lsdr.linalg.dense import Dense
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.krylov import krylov_ritz
from lsdr.linalg.lanczos import lanczos_vector
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.parallel import each_layer
from lsdr.linalg.ritz_bounds import ritz_spectrum, rounding
from lsdr.linalg.sharded import any_of
from lsdr.linalg.tracked_layer import GroupKey, Layer, layer_of, products
from lsdr.linalg.tracked_reading import Reading, StepResult, size_of, to_host, trusted, unit_of
from lsdr.linalg.triton_gram import GroupedGram, available, captured, suitable
from lsdr.linalg.weight_pass import restored_columns
from lsdr.spectrum import Spectrum

T = TypeVar("T")

# Products spent on a layer whose residual is above the tolerance, before it is reported as it is.
_REFINEMENT = 16


@dataclass(frozen=True)
class _Graph:
    """A step of all layers as a CUDA graph."""

    places: Hashable
    replay: Callable[[], None]
    result: StepResult
    kept: dict[Hashable, GroupedGram]
    """The memory that it works on."""


class Tracker:
    r"""Top singular values of every layer, one pass over the weights an update.

    .. math:: V \leftarrow \operatorname{orth}(A^T A V), \quad \sigma_i \approx \sqrt{\sigma_i(A^T A V)}

    The first time, a layer is started cold by `lanczos_vector` (one value) or a block Krylov space (several). Later
    updates are warm: one product with A'A a step, made of one read of the weight. Each value comes with

    - `lower`: the value itself less an allowance for rounding, 4 u sqrt(max(m, n)) of the largest, statistical and not
      a proof (with TF32 switched on for matrix products, several values on a GPU are less exact than that); the
      singular values of A'A V never exceed the squared singular values of A;
    - `upper`: from the Frobenius norm of the same pass, :math:`\sigma_j^2 \le |A|_F^2 - \sum_{i \ne j} \sigma_i^2` and
      :math:`j \sigma_j^2 \le |A|_F^2 - \sum_{i > j} \sigma_i^2`: rigorous but for rounding, and loose unless the rank
      is low. After a cold start Lanczos' own bound, which is tight. None for an operator that is not a matrix;
    - `residual`: :math:`|A^T A v - \theta v| / \theta` of the vector before the step. A singular value lies within
      about half of it, relatively; it grows when the weight changes faster than the step follows. `tolerance` spends
      more steps there.

    Weights are held by reference and read as they are at each update; nothing is copied, nothing is stacked, and
    neither the weights, autograd nor torch's global generator notice. On a GPU a warm update is one synchronisation.
    Weights may be DTensors (FSDP2, tensor parallelism): see `lsdr.linalg.sharded`; all processes call alike.

    A weight of zeros has the value 0; once it is not zero any more it is started cold. A weight with nan or infinite
    entries goes to `broken` and is started cold once it is finite again.

    Args:
        weights: Matrices by name: tensors of two or more dimensions, what follows the first flattened (parameters,
            views of a fused tensor, any floating type), or operators.
        count: How many values of each, at most min(m, n).
        generator: Of the random starts; None is a generator of its own with a fixed seed. A start depends on the seed
            and the layer's name alone.

    Raises:
        TypeError: If a weight is not a floating-point tensor or an operator.
        ValueError: If a weight has fewer than two dimensions or no entries, or `count` is not positive.

    Example:
        >>> weight = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
        >>> tracker = Tracker({"layer": weight}, count=2)
        >>> tracker.update()["layer"].values
        tensor([3., 2.], dtype=torch.float64)
        >>> _ = weight.mul_(2)
        >>> tracker.update()["layer"].values, tracker.frobenius["layer"]
        (tensor([6., 4.], dtype=torch.float64), 7.4833)
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor | LinearOperator],
        *,
        count: int = 1,
        generator: torch.Generator | None = None,
    ):
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.count = count
        self.frobenius: dict[str, float] = {}
        """Frobenius norms of the last update's layers; the stable rank is its square over the largest value's."""
        self.broken: dict[str, int] = {}
        """Layers of the last update with nan or infinite entries, and how many."""
        self._seed = 0
        if generator is not None:
            self._seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._layers = {name: layer_of(name, weight, count) for name, weight in weights.items()}
        members: dict[GroupKey, list[Layer]] = {}
        for layer in self._layers.values():
            layer.row = len(members.setdefault(layer.group, []))
            members[layer.group].append(layer)
        self._buffers: dict[GroupKey, Tensor] = {}
        self._grouped: dict[Hashable, GroupedGram] = {}
        self._graph: _Graph | None = None
        for key, layers in members.items():
            self._buffers[key] = torch.stack([self._start(layer) for layer in layers]).to(key[0])
        self._images = {key: torch.empty_like(buffer) for key, buffer in self._buffers.items()}

    @property
    def vectors(self) -> dict[str, Float[Tensor, "k n"]]:
        """Right singular vectors of the started layers, one a row, largest first; views that the next update changes.

        Of the weight flattened in the order of its dimensions, whatever order it is stored in. Left singular vectors
        where a DTensor's columns alone are split.
        """
        return {name: self._vectors(layer) for name, layer in self._layers.items() if layer.started}

    def update(
        self, names: Iterable[str] | None = None, *, steps: int = 1, tolerance: float | None = None
    ) -> dict[str, Spectrum]:
        """Follow the weights as they are now.

        Args:
            names: Layers to update; None for all.
            steps: Passes over the weights.
            tolerance: Spend more products, 16 at most, on a layer whose largest value has a residual above this; None
                never does. 0.02 keeps a singular value within 1% of the one reported.

        Returns:
            For each layer that is finite, in the order asked for, its largest values in float64 on the CPU.

        Raises:
            KeyError: If a name is not among the weights.
            ValueError: If `steps` is not positive.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        chosen = list(self._layers.values()) if names is None else [self._layers[name] for name in dict.fromkeys(names)]
        self.frobenius, self.broken = {}, {}
        if not chosen:
            return {}
        with ExitStack() as stack:
            for device in {layer.device for layer in chosen}:
                stack.enter_context(full_precision(device))
            return self._update(chosen, steps, tolerance)

    def state_dict(self) -> dict[str, Tensor]:
        """Vectors and scales of the started layers, tensors only; with it the next update is bitwise the same."""
        state = {"seed": torch.tensor(self._seed)}
        for name, layer in self._layers.items():
            if layer.started:
                state[f"vectors.{name}"] = self._vectors(layer).clone()
                state[f"scale.{name}"] = torch.tensor(layer.scale, dtype=torch.float64)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up where `state_dict` was; layers that are not in it are started cold.

        Raises:
            ValueError: If it has vectors of a layer that is not here, or of another shape.
        """
        vectors = {key.removeprefix("vectors."): value for key, value in state.items() if key.startswith("vectors.")}
        for name, value in vectors.items():
            if name not in self._layers:
                raise ValueError(
                    f"the state has vectors of {name!r}, which is not among the {len(self._layers)} weights"
                )
            layer = self._layers[name]
            if value.shape != (layer.k, layer.length):
                raise ValueError(
                    f"the state's vectors of {name!r} have shape {tuple(value.shape)}, the tracker's "
                    f"{(layer.k, layer.length)}: the weight or `count` is another"
                )
        self._seed = int(state["seed"])
        for name, layer in self._layers.items():
            layer.started = name in vectors
            layer.scale = float(state[f"scale.{name}"]) if layer.started else 1.0
            self._vectors(layer).copy_(vectors[name] if layer.started else self._start(layer))

    def _update(self, chosen: list[Layer], steps: int, tolerance: float | None) -> dict[str, Spectrum]:
        readings = self._advance(chosen, steps)
        again = [layer for layer in chosen if not trusted(layer, readings[layer]) and self._examine(layer)]
        if again:
            readings |= self._advance(again, 1)
        finite = [layer for layer in chosen if layer.name not in self.broken]
        cold = [layer for layer in finite if not layer.started and size_of(readings[layer]) > 0]
        for layer, reading in zip(cold, self._each(self._start_cold, cold), strict=True):
            readings[layer] = replace(reading, frobenius=readings[layer].frobenius)
            layer.started = True
        if tolerance is not None:
            late = self._late(finite, readings, tolerance)
            refine = partial(self._refine, tolerance=tolerance)
            for layer, reading in zip(late, self._each(refine, late), strict=True):
                readings[layer] = replace(reading, frobenius=readings[layer].frobenius)
        return {layer.name: self._spectrum(layer, readings[layer]) for layer in finite}

    def _advance(self, layers: list[Layer], steps: int) -> dict[Layer, Reading]:
        """Steps of block power iteration, then one synchronisation for all results."""
        groups: dict[GroupKey, list[Layer]] = {}
        for layer in layers:
            groups.setdefault(layer.group, []).append(layer)
        for step in range(steps):
            small, sums = self._step(groups, squares=step == steps - 1)
        small, totals = to_host(small, sums)
        readings, position = {}, 0
        for key, members in groups.items():
            found = ritz(*small[key])
            if key[2] > 1:
                rows = self._rows(self._buffers, members)
                self._keep(members, found.rotation.to(rows) @ rows)
            for layer, squares, residual in zip(members, found.squares.tolist(), found.residual.tolist(), strict=True):
                readings[layer] = Reading(squares, residual, totals[position])
                position += 1
        return readings

    def _step(self, groups: dict[GroupKey, list[Layer]], squares: bool) -> StepResult:
        """One pass over the weights; on a GPU a replay of a CUDA graph where every layer is the kernel's to do."""
        layers = [layer for members in groups.values() for layer in members]

        def run() -> StepResult:
            given = [self._vectors(layer) for layer in layers]
            out = [self._vectors(layer, self._images) for layer in layers]
            sums = products(layers, given, out, squares, self._grouped)
            small = {}
            for key, members in groups.items():
                power = block_power_step(self._rows(self._buffers, members), self._rows(self._images, members))
                self._keep(members, power.vectors)
                small[key] = torch.stack(power[1:])
            return small, sums

        places = self._places(layers)
        if places is None:
            return run()
        if self._graph is None or self._graph.places != places:
            before = {key: buffer.clone() for key, buffer in self._buffers.items()}
            replay, result = captured(run)
            self._graph = _Graph(places, replay, result, dict(self._grouped))
            for key, buffer in before.items():
                self._buffers[key].copy_(buffer)
        self._graph.replay()
        return self._graph.result

    def _places(self, layers: list[Layer]) -> Hashable | None:
        """Addresses of all weights if a step launches the same kernels every time and nothing else; else None."""
        if len(layers) != len(self._layers) or len({layer.device for layer in layers}) > 1:
            return None
        places = []
        for layer in layers:
            if layer.device.type != "cuda" or layer.k > 1 or layer.scale != 1.0 or layer.dtype != torch.float32:
                return None
            if layer.shards is not None or isinstance(layer.weight, LinearOperator):
                return None
            matrix, order = layer.matrix()
            if order is not None or not suitable(matrix):
                return None
            places.append((matrix.data_ptr(), matrix.stride(0), matrix.dtype))
        return tuple(places) if available(layers[0].device) else None

    def _rows(self, buffers: dict[GroupKey, Tensor], members: list[Layer]) -> Float[Tensor, "layers k n"]:
        """What is kept of layers of one group."""
        buffer = buffers[members[0].group]
        rows = [layer.row for layer in members]
        return buffer if rows == list(range(len(buffer))) else buffer[rows]

    def _keep(self, members: list[Layer], vectors: Float[Tensor, "layers k n"]) -> None:
        buffer = self._buffers[members[0].group]
        rows = [layer.row for layer in members]
        if rows == list(range(len(buffer))):
            buffer.copy_(vectors)
        else:
            buffer[rows] = vectors

    def _vectors(self, layer: Layer, buffers: dict[GroupKey, Tensor] | None = None) -> Float[Tensor, "k n"]:
        return (self._buffers if buffers is None else buffers)[layer.group][layer.row]

    def _start(self, layer: Layer) -> Float[Tensor, "k n"]:
        """Random orthonormal vectors: the same on every device and process, whatever was drawn before."""
        draw = torch.randn(layer.length, layer.k, generator=self._generator(layer), dtype=layer.dtype)
        q: Tensor = torch.linalg.qr(draw).Q
        return q.mT

    def _generator(self, layer: Layer) -> torch.Generator:
        return torch.Generator().manual_seed((self._seed + zlib.crc32(layer.name.encode())) % 2**63)

    def _examine(self, layer: Layer) -> bool:
        """Find out why the sum of squares is no positive number; whether to try again under another scale."""
        bad, largest = layer.examine()
        layer.started = False
        layer.scale = unit_of(largest, layer.dtype)
        self._vectors(layer).copy_(self._start(layer))
        if bad:
            layer.scale = 1.0
            self.broken[layer.name] = bad
        return not bad and largest > 0

    def _start_cold(self, layer: Layer) -> Reading:
        if layer.k > 1:
            return self._krylov(layer, self._start(layer).to(layer.device), "block Krylov")
        order, operator = None, layer.shards if layer.shards is not None else layer.weight
        if not isinstance(operator, LinearOperator):
            matrix, order = layer.matrix()
            operator = Dense(matrix)
        spectrum, vector = lanczos_vector(operator, generator=self._generator(layer))
        if order is not None:
            vector = restored_columns(vector[None], layer.weight.shape, order)[0]
        self._vectors(layer).copy_(vector)
        assert spectrum.upper is not None
        assert spectrum.residual is not None
        square, residual = (float(spectrum.values[0]) / layer.scale) ** 2, float(spectrum.residual[0])
        return Reading([square], [residual], None, spectrum.method, float(spectrum.upper[0]))

    def _refine(self, layer: Layer, tolerance: float) -> Reading:
        return self._krylov(
            layer, self._vectors(layer), "block power iteration, refined", tolerance=tolerance, depth=_REFINEMENT
        )

    def _krylov(self, layer: Layer, start: Tensor, method: str, **settings: float | int) -> Reading:
        with full_precision(layer.device):
            squares, residual, vectors = krylov_ritz(layer.product, start, shared=layer.shards is not None, **settings)  # type: ignore[arg-type]
            self._vectors(layer).copy_(vectors)
        return Reading(squares.tolist(), residual.tolist(), None, method)

    def _each(self, function: Callable[[Layer], T], layers: list[Layer]) -> Iterator[T]:
        """In order; on threads where the layers are this process's own."""
        own = all(layer.shards is None and layer.device.type == "cpu" for layer in layers)
        return each_layer(function, layers) if own and len(layers) > 1 else map(function, layers)

    def _late(self, layers: list[Layer], readings: dict[Layer, Reading], tolerance: float) -> list[Layer]:
        """Layers to refine: not those just started, whose own tolerance was met."""
        late = [readings[layer].residual[0] > tolerance and readings[layer].upper == math.inf for layer in layers]
        return [layer for layer, flag in zip(layers, any_of(layers, late), strict=True) if flag]

    def _spectrum(self, layer: Layer, reading: Reading) -> Spectrum:
        spectrum = ritz_spectrum(
            reading.squares,
            reading.residual,
            reading.frobenius,
            scale=layer.scale,
            allowance=rounding(layer.shape, layer.dtype),
            method=reading.method,
            upper=reading.upper,
        )
        if reading.frobenius is not None:
            self.frobenius[layer.name] = math.sqrt(reading.frobenius) * layer.scale
        if layer.started:
            layer.scale = unit_of(float(spectrum.values[0]), layer.dtype)
        return spectrum
