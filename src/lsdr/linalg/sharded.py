r"""Weights that several processes hold in parts: products of local parts, and one small sum for all layers together.

A weight is never gathered. With rows split (FSDP, column-wise tensor parallelism) every process adds up
:math:`A_{loc}^T A_{loc} v`; with columns split (row-wise tensor parallelism) it is the left vector that is followed,
:math:`A_{loc} A_{loc}^T u`. Either way one sum over the processes is a whole step. Only a weight whose rows and columns
are both split needs two. Where a weight is replicated (HSDP's outer dimension) nothing is summed.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from lsdr.linalg.dense import spectral_dtype
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.weight_pass import permuted_columns, restored_columns, rows_of, weight_pass

if TYPE_CHECKING:
    from lsdr.linalg.tracked_layer import Layer


class Shards(LinearOperator):
    """A DTensor as an operator: its rows over the processes, or its columns, in which case it is transposed.

    Args:
        name: What errors call it.
        weight: The DTensor, held by reference.
    """

    def __init__(self, name: str, weight: Any):
        mesh, placements = weight.device_mesh, weight.placements
        split: dict[int, int] = {}
        for dim, placement in enumerate(placements):
            if placement.is_partial():
                raise ValueError(
                    f"{name!r} has placements {placements}: the parts of a sum have no spectrum; reduce it first"
                )
            if not placement.is_replicate() and mesh.size(dim) > 1:
                split[dim] = placement.dim
        rows, columns = 0 in split.values(), any(split.values())
        m, n = len(weight), weight.numel() // len(weight)
        self.weight, self.mesh, self.dims = weight, mesh, tuple(split)
        """The mesh dimensions over which parts differ, and sums run."""
        self.left = columns and not rows
        """Whether it is transposed."""
        self.both = columns and rows
        self._corner: tuple[int, int] | None = None
        if self.both:
            if set(split.values()) != {0, 1} or not all(placements[dim].is_shard() for dim in split):
                raise ValueError(
                    f"{name!r} has placements {placements}: rows and columns that are both split can be tracked as "
                    "Shard(0) and Shard(1) only; leave it out"
                )
            from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

            offset = compute_local_shape_and_global_offset(weight.shape, mesh, placements)[1]
            self._corner = offset[0], offset[1] * math.prod(weight.shape[2:])
        super().__init__((n, m) if self.left else (m, n), spectral_dtype(weight.dtype), weight.device)

    def local(self) -> tuple[Tensor, tuple[int, ...] | None]:
        """This process's part as a matrix, and the order of its columns; see `rows_of`."""
        part: Tensor = self.weight.to_local()
        if not part.numel():
            return part.new_empty(0, self.shape[1]), None
        matrix, order = rows_of(part)
        return (matrix.flatten(1).mT, None) if self.left else (matrix, order)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        flat = x.reshape(-1, self.shape[1])
        image = flat.new_zeros(len(flat), self.shape[0])
        self.forward(flat, image, 1.0)
        self.sum(image)
        return image.view(*x.shape[:-1], self.shape[0])

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        flat = y.reshape(-1, self.shape[0])
        out = flat.new_zeros(len(flat), self.shape[1])
        self.back(flat, out, 1.0)
        self.sum(out)
        return out.view(*y.shape[:-1], self.shape[1])

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x: one sum, or two if rows and columns are both split."""
        return self.product(x.reshape(-1, self.shape[1]), 1.0, False)[0].view_as(x)

    def product(self, block: Float[Tensor, "k n"], scale: float, stop: bool) -> tuple[Float[Tensor, "k n"], bool]:
        """A'A of each row over the square of the scale, and whether any process wants to stop: the same for all."""
        out = torch.empty_like(block, memory_format=torch.contiguous_format)
        if self.both:
            image = block.new_zeros(len(block), self.shape[0])
            self.forward(block, image, scale)
            self.sum(image)
            self.back(image, out, scale)
        else:
            matrix, order = self.local()
            if order is None:
                weight_pass(matrix, block.contiguous(), out, scale, squares=False)
            else:
                given = permuted_columns(block, self.weight.shape, order)
                image = torch.empty_like(given)
                weight_pass(matrix, given, image, scale, squares=False)
                out = restored_columns(image, self.weight.shape, order)
        buffer = torch.cat([out.flatten(), out.new_full((1,), float(stop))])
        self.sum(buffer)
        return buffer[:-1].view_as(out), bool(buffer[-1] > 0)

    def sum(self, buffer: Tensor) -> None:
        """Add up in place over the processes whose parts differ."""
        for dim in self.dims:
            distributed.all_reduce(buffer, group=self.mesh.get_group(dim))

    def agree(self, bad: int, largest: float) -> tuple[int, float]:
        """The sum of counts and the largest of numbers."""
        count = torch.tensor(bad, device=self.device)
        number = torch.tensor(0.0 if bad else largest, dtype=torch.float64, device=self.device)
        self.sum(count)
        for dim in self.dims:
            distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self.mesh.get_group(dim))
        return int(count), float(number)

    def forward(self, block: Tensor, image: Tensor, scale: float) -> float | Tensor:
        """This part of A x, written into a whole one; the sum of squares of the part."""
        matrix, row, column = self._block(block.dtype, scale)
        image[:, row : row + len(matrix)] = block[:, column : column + matrix.shape[1]] @ matrix.mT
        total = torch.linalg.vector_norm(matrix).double().square()
        return float(total) if matrix.device.type == "cpu" else total

    def back(self, image: Tensor, out: Tensor, scale: float) -> None:
        """This part of A'y, in a whole one that is zero elsewhere."""
        matrix, row, column = self._block(out.dtype, scale)
        out.zero_()
        out[:, column : column + matrix.shape[1]] = image[:, row : row + len(matrix)] @ matrix

    def _block(self, dtype: torch.dtype, scale: float) -> tuple[Tensor, int, int]:
        """This part over the scale, its columns in order, and its place in the whole."""
        part = self.weight.to_local()
        if not part.numel():
            matrix = part.new_empty(0, 0, dtype=dtype)
        else:
            matrix = part.flatten(1).to(dtype)
            matrix = matrix.mT if self.left else matrix
            matrix = matrix if scale == 1.0 else matrix * (1 / scale)
        if self._corner is None:
            self._corner = self._first_row(len(matrix)), 0
        return matrix, *self._corner

    def _first_row(self, rows: int) -> int:
        """Where this part's rows begin, parts in the order of the mesh: the order of rows is nothing to a spectrum."""
        place = 0
        for dim in self.dims:
            place = place * self.mesh.size(dim) + self.mesh.get_local_rank(dim)
        counts = torch.zeros(math.prod(self.mesh.size(dim) for dim in self.dims), device=self.device)
        counts[place] = rows
        self.sum(counts)
        return int(counts[:place].sum())


def reduce_together(
    layers: Sequence["Layer"],
    vectors: Sequence[Tensor],
    out: Sequence[Tensor],
    sums: list[float | Tensor | None],
) -> None:
    """Make local products and sums of squares global, in place: one sum for all layers that are split alike.

    Layers whose rows and columns are both split have no local product yet; theirs is made here, after a first sum.
    """
    split = [i for i, layer in enumerate(layers) if layer.shards is not None and layer.shards.dims]
    both = [i for i in split if _shards(layers[i]).both]
    images = {i: out[i].new_zeros(len(out[i]), layers[i].shape[0]) for i in both}
    for i in both:
        sums[i] = _shards(layers[i]).forward(vectors[i], images[i], layers[i].scale)
    for group in _alike(layers, both):
        _sum_all(_shards(layers[group[0]]), [images[i] for i in group])
    for i in both:
        _shards(layers[i]).back(images[i], out[i], layers[i].scale)
    for group in _alike(layers, split):
        totals = [torch.as_tensor(sums[i], dtype=out[i].dtype, device=out[i].device) for i in group]
        _sum_all(_shards(layers[group[0]]), [*(out[i] for i in group), *totals])
        for i, total in zip(group, totals, strict=True):
            sums[i] = total if total.device.type != "cpu" else float(total)


def any_of(layers: Sequence["Layer"], flags: Sequence[bool]) -> list[bool]:
    """Whether any process that has a part of a layer says so: what they do next must be the same."""
    agreed = list(flags)
    split = [i for i, layer in enumerate(layers) if layer.shards is not None and layer.shards.dims]
    for group in _alike(layers, split):
        found = torch.tensor([float(flags[i]) for i in group], device=layers[group[0]].device)
        _shards(layers[group[0]]).sum(found)
        for i, flag in zip(group, found.tolist(), strict=True):
            agreed[i] = flag > 0
    return agreed


def _shards(layer: "Layer") -> Shards:
    assert layer.shards is not None
    return layer.shards


def _alike(layers: Sequence["Layer"], chosen: Sequence[int]) -> list[list[int]]:
    """Layers whose sums run over the same processes in the same type, in the layers' order."""
    groups: dict[Any, list[int]] = {}
    for i in chosen:
        shards = _shards(layers[i])
        groups.setdefault((shards.mesh, shards.dims, layers[i].dtype), []).append(i)
    return list(groups.values())


def _sum_all(shards: Shards, tensors: Sequence[Tensor]) -> None:
    buffer = torch.cat([tensor.flatten() for tensor in tensors])
    shards.sum(buffer)
    for tensor, summed in zip(tensors, buffer.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view(tensor.shape))
