"""A layer that is followed: where its weight is, and products with it, alone or with all others in one pass."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.dense import spectral_dtype
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.sharded import Shards, reduce_together
from lsdr.linalg.triton_gram import GroupedGram, available, suitable
from lsdr.linalg.weight_pass import many_passes, permuted_columns, restored_columns, rows_of, weight_pass

# Sets of layers whose tables are kept for a GPU, with room for their partial sums.
_TABLES = 4

GroupKey = tuple[torch.device, torch.dtype, int, int]


@dataclass(eq=False)
class Layer:
    """A weight and what is known of it; its vectors are a row of its group's buffer."""

    name: str
    weight: Tensor | LinearOperator
    shape: tuple[int, int]
    k: int
    dtype: torch.dtype
    device: torch.device
    shards: Shards | None = None
    row: int = 0
    scale: float = 1.0
    """A power of two that products are divided by, twice; 1 unless the weight is extremely small or large."""
    started: bool = False

    @property
    def length(self) -> int:
        """Elements of a vector."""
        return self.shape[0] if self.shards is not None and self.shards.left else self.shape[1]

    @property
    def group(self) -> GroupKey:
        """Layers whose vectors are alike lie side by side and are orthonormalised in one call."""
        return self.device, self.dtype, self.k, self.length

    def matrix(self) -> tuple[Tensor, tuple[int, ...] | None]:
        """This process's part of the weight as it is now, and the order of its columns; see `rows_of`."""
        assert isinstance(self.weight, Tensor)
        if self.shards is None:
            return rows_of(self.weight)
        return self.shards.local()

    def product(self, block: Float[Tensor, "k n"], stop: bool = False) -> tuple[Float[Tensor, "k n"], bool]:
        """A'A of each row over the square of the scale, and whether any process wants to stop after it."""
        if isinstance(self.weight, LinearOperator):
            return _operator_product(self.weight, block, self.scale), stop
        if self.shards is not None:
            return self.shards.product(block, self.scale, stop)
        matrix, order = self.matrix()
        vectors = block.contiguous() if order is None else permuted_columns(block, self.weight.shape, order)
        out = torch.empty_like(vectors)
        weight_pass(matrix, vectors, out, self.scale, squares=False)
        return (out if order is None else restored_columns(out, self.weight.shape, order)), stop

    def examine(self) -> tuple[int, float]:
        """How many entries are nan or infinite, and the largest of all (of a product's, for an operator)."""
        if isinstance(self.weight, LinearOperator):
            draw = torch.randn(self.weight.shape[1], generator=torch.Generator().manual_seed(0), dtype=self.dtype)
            parts: Sequence[Tensor] = [self.weight.matvec(draw.to(self.device))]
        else:
            matrix = self.matrix()[0]
            parts = matrix.split(max(1, (4 << 20) // max(matrix[:1].numel(), 1))) if matrix.numel() else []
        bad, largest = 0, 0.0
        for part in parts:
            wide = part.to(self.dtype)
            bad += int((~wide.isfinite()).sum())
            largest = max(largest, float(torch.linalg.vector_norm(wide, torch.inf)))
        return (bad, largest) if self.shards is None else self.shards.agree(bad, largest)


def layer_of(name: str, weight: Tensor | LinearOperator, count: int) -> Layer:
    """Describe a weight; see `Tracker` for what is refused."""
    if isinstance(weight, LinearOperator):
        if not min(weight.shape):
            raise ValueError(f"{name!r} has shape {weight.shape}: no singular values; leave it out")
        return Layer(name, weight, weight.shape, min(count, *weight.shape), weight.dtype, weight.device)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"{name!r} must be a floating-point tensor or a LinearOperator, got {kind}")
    if weight.ndim < 2 or not weight.numel():
        raise ValueError(f"{name!r} has shape {tuple(weight.shape)}: a matrix with entries is needed; leave it out")
    if weight.is_meta:
        raise ValueError(f"{name!r} is on the meta device and has no entries yet: track it after it is initialised")
    shape = (len(weight), weight.numel() // len(weight))
    shards = Shards(name, weight) if hasattr(weight, "device_mesh") else None
    return Layer(name, weight, shape, min(count, *shape), spectral_dtype(weight.dtype), weight.device, shards)


@dataclass
class _Stored:
    """A local weight in a pass over many."""

    place: int
    matrix: Tensor
    vectors: Tensor
    out: Tensor
    order: tuple[int, ...] | None


def products(
    layers: Sequence[Layer],
    vectors: Sequence[Tensor],
    out: Sequence[Tensor],
    squares: bool,
    grouped: dict[Hashable, GroupedGram],
) -> list[float | Tensor | None]:
    """Write B'B v of every layer, B = A / scale; every weight read once, what is sharded summed in one reduction.

    Args:
        layers: All in one go.
        vectors: Of each.
        out: Where the products go.
        squares: Whether sums of squares are wanted.
        grouped: Tables of addresses for a GPU, kept from one pass to the next by the caller.

    Returns:
        The sum of squares of B, of every layer; None where the weight is an operator.
    """
    sums: list[float | Tensor | None] = [None] * len(layers)
    plain: list[_Stored] = []
    on_device: dict[torch.device, list[_Stored]] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer.weight, LinearOperator):
            out[i].copy_(_operator_product(layer.weight, vectors[i], layer.scale))
            continue
        if layer.shards is not None and layer.shards.both:
            continue
        matrix, order = layer.matrix()
        if order is not None:
            permuted = permuted_columns(vectors[i], layer.weight.shape, order)
            plain.append(_Stored(i, matrix, permuted, torch.empty_like(permuted), order))
        elif layer.scale == 1.0 and available(layer.device) and suitable(matrix) and layer.dtype == torch.float32:
            on_device.setdefault(layer.device, []).append(_Stored(i, matrix, vectors[i], out[i], None))
        else:
            plain.append(_Stored(i, matrix, vectors[i], out[i], None))
    for device, members in on_device.items():
        for item, total in zip(members, _on_device(device, members, grouped)().unbind(), strict=True):
            sums[item.place] = total
    if plain:
        scales = [layers[item.place].scale for item in plain]
        matrices, given, wanted = zip(*((item.matrix, item.vectors, item.out) for item in plain), strict=True)
        for item, found in zip(plain, many_passes(matrices, given, wanted, scales, squares), strict=True):
            sums[item.place] = found
            if item.order is not None:
                weight = layers[item.place].weight
                out[item.place].copy_(restored_columns(item.out, weight.shape, item.order))
    reduce_together(layers, vectors, out, sums)
    return sums


def _on_device(device: torch.device, members: Sequence[_Stored], grouped: dict[Hashable, GroupedGram]) -> GroupedGram:
    """The launches for these weights where they are now, made once."""
    places = [(s.matrix.data_ptr(), s.matrix.shape, s.matrix.stride(0), s.matrix.dtype) for s in members]
    key = device, *places, *(s.vectors.data_ptr() for s in members), *(s.out.data_ptr() for s in members)
    if key not in grouped:
        while len(grouped) >= _TABLES:
            del grouped[next(iter(grouped))]
        grouped[key] = GroupedGram(*([getattr(s, name) for s in members] for name in ("matrix", "vectors", "out")))
    return grouped[key]


def _operator_product(operator: LinearOperator, block: Tensor, scale: float) -> Tensor:
    """Divided before the products and after: in between, numbers are of the operator's own size."""
    return operator.gram(block) if scale == 1.0 else operator.gram(block * (1 / scale)) * (1 / scale)
