"""One pass over many stored weights: A'A V and the squared Frobenius norm of each, every weight read once."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.parallel import each_layer

# A block of rows stays in the cache of a core between A v and A'(A v): the second product costs no memory traffic.
_CACHED_BYTES = 1 << 20
# On a GPU a block bounds what widening a half-precision weight takes.
_DEVICE_BYTES = 64 << 20
# Below this it costs less to work alone than to start threads.
_ALONE_BYTES = 4 << 20
# Pieces of work a thread: enough for an even end, few enough that handing them out costs nothing.
_PIECES = 8


def rows_of(weight: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
    """A weight as a matrix without a copy, and the order of its trailing dimensions that this took (None: as is).

    Storage in another order of dimensions (`channels_last`) permutes the columns of the matrix; singular values are
    the same and vectors are to be permuted. What is no view in any order comes back as it is, to be flattened block
    by block.
    """
    weight = weight.detach()
    if weight.ndim == 2:
        return weight, None
    if weight.is_contiguous():
        return weight.view(len(weight), -1), None
    stride = weight.stride()
    order = tuple(sorted(range(1, weight.ndim), key=lambda d: -stride[d]))
    permuted = weight.permute(0, *order)
    try:
        return permuted.view(len(weight), -1), order
    except RuntimeError:
        return weight, None


def permuted_columns(vectors: Float[Tensor, "k n"], shape: Sequence[int], order: tuple[int, ...]) -> Tensor:
    """Vectors over the flattened trailing dimensions `shape[1:]`, in another order of these dimensions."""
    return vectors.view(-1, *shape[1:]).permute(0, *order).reshape(len(vectors), -1)


def restored_columns(vectors: Float[Tensor, "k n"], shape: Sequence[int], order: tuple[int, ...]) -> Tensor:
    """What `permuted_columns` did, undone."""
    inverse = [0] * (len(order) + 1)
    for place, dim in enumerate(order, 1):
        inverse[dim] = place
    return vectors.view(-1, *(shape[d] for d in order)).permute(inverse).reshape(len(vectors), -1)


def row_blocks(matrix: Tensor, row_bytes: int) -> Sequence[Tensor]:
    """A matrix in blocks of rows, as stored, of a megabyte on a CPU and of 64 on a GPU.

    Args:
        matrix: Shape (m, ...).
        row_bytes: What a row takes in the type of the products.
    """
    wanted = _CACHED_BYTES if matrix.device.type == "cpu" else _DEVICE_BYTES
    size = max(1, math.ceil(wanted / max(row_bytes, 1)))
    return matrix.split(size) if len(matrix) > size else (matrix,)


def weight_pass(
    matrix: Tensor, vectors: Float[Tensor, "k n"], out: Float[Tensor, "k n"], scale: float = 1.0, squares: bool = True
) -> float | Tensor:
    r"""Write B'B v of each vector, B = A / scale, and return the sum of squares of B, reading A once.

    Squares are summed in float32 within a block of a megabyte and in float64 over the blocks. Half precision is
    widened block by block, and a scale (a power of two) is divided out block by block, so that weights as small as
    1e-30 or as large as 1e30 neither underflow nor overflow when they are squared.

    Args:
        matrix: Shape (m, n), or (m, ...) whose rows are flattened block by block.
        vectors: In the type of the computation, float32 or float64.
        out: Where the products go.
        scale: The power of two that is divided out.
        squares: Whether the sum of squares is wanted; 0 if not.

    Returns:
        The sum, a number on a CPU and a tensor of shape () on a GPU; not finite where a weight is not.
    """
    on_cpu = matrix.device.type == "cpu"
    k, n = vectors.shape
    as_stored = matrix.ndim == 2 and matrix.dtype == vectors.dtype and scale == 1.0
    total: float | Tensor = 0.0
    if not min(k, n, len(matrix)):
        out.zero_()
        return total
    single, few = k == 1, k <= 4
    x, z, columns = vectors[0], out[0], vectors.mT
    beta = 0.0
    for stored in row_blocks(matrix, n * vectors.dtype.itemsize):
        block = stored if as_stored else stored.flatten(1).to(vectors.dtype)
        if scale != 1.0:
            block = block * (1.0 / scale)
        if single:  # a matrix-vector product runs at the memory's speed, a thin matrix product does not
            z.addmv_(block.mT, block.mv(x), beta=beta)
        else:
            out.addmm_((block @ columns).mT if few else vectors @ block.mT, block, beta=beta)
        beta = 1.0
        if not squares:
            continue
        if not on_cpu:
            total = total + torch.linalg.vector_norm(block).double().square()
        elif block.is_contiguous():
            flat = block.view(-1)
            total += float(torch.dot(flat, flat))
        else:
            total += float(torch.linalg.vector_norm(block)) ** 2
    return total


def stacked_view(matrices: Sequence[Tensor]) -> Tensor | None:
    """Matrices that lie at equal distances in one storage as one tensor (L, m, n) over it, or None; never a copy."""
    first = matrices[0]
    if first.ndim != 2:
        return None
    kind, places = (first.shape, first.stride(), first.dtype), [matrix.storage_offset() for matrix in matrices]
    storage = first.untyped_storage().data_ptr()
    for matrix in matrices:
        if (matrix.shape, matrix.stride(), matrix.dtype) != kind or matrix.untyped_storage().data_ptr() != storage:
            return None
    steps = {b - a for a, b in pairwise(places)}
    if len(steps) != 1 or min(steps) <= 0:
        return None
    return first.as_strided((len(matrices), *first.shape), (steps.pop(), *first.stride()), places[0])


def stacked_pass(
    stack: Float[Tensor, "layers m n"], vectors: Float[Tensor, "layers k n"], out: Float[Tensor, "layers k n"]
) -> Tensor:
    """`weight_pass` of layers that are one tensor, in two calls; the sums of squares, shape (layers,)."""
    wide = stack.to(vectors.dtype)
    torch.bmm(torch.bmm(vectors, wide.mT), wide, out=out)
    squares: Tensor = torch.linalg.vector_norm(wide, dim=(1, 2)).double().square()
    return squares


def many_passes(
    matrices: Sequence[Tensor],
    vectors: Sequence[Tensor],
    out: Sequence[Tensor],
    scales: Sequence[float],
    squares: bool = True,
) -> list[float | Tensor]:
    """`weight_pass` of every matrix: in balanced pieces on as many threads as torch has on a CPU, a loop on a GPU.

    Small matrices that lie at equal distances in one storage (heads of a projection, experts) are one product.
    """
    sums: list[float | Tensor] = [0.0] * len(matrices)

    def work(piece: list[list[int]]) -> None:
        with torch.no_grad():
            for unit in piece:
                if len(unit) == 1:
                    i = unit[0]
                    sums[i] = weight_pass(matrices[i], vectors[i], out[i], scales[i], squares)
                    continue
                views = [stacked_view([tensors[i] for i in unit]) for tensors in (matrices, vectors, out)]
                found = stacked_pass(*views)  # type: ignore[arg-type]
                for i, total in zip(unit, found if found.is_cuda else found.tolist(), strict=True):
                    sums[i] = total

    units = _units(matrices, vectors, out, scales)
    sizes = [sum(matrices[i].numel() * vectors[i].dtype.itemsize for i in unit) for unit in units]
    threads = torch.get_num_threads()
    if threads == 1 or sum(sizes) < _ALONE_BYTES or matrices[0].device.type != "cpu":
        work(units)
        return sums
    goal = sum(sizes) / (threads * _PIECES)
    pieces: list[list[list[int]]] = [[]]
    filled = 0.0
    for place in sorted(range(len(units)), key=lambda place: -sizes[place]):
        if filled >= goal:
            pieces.append([])
            filled = 0.0
        pieces[-1].append(units[place])
        filled += sizes[place]
    for _ in each_layer(work, pieces):
        pass
    return sums


def _units(
    matrices: Sequence[Tensor], vectors: Sequence[Tensor], out: Sequence[Tensor], scales: Sequence[float]
) -> list[list[int]]:
    """What is worked on at once: single layers, and small ones that are views of one tensor, a cached block of them."""
    size = _CACHED_BYTES if matrices[0].device.type == "cpu" else _DEVICE_BYTES
    units: list[list[int]] = []
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, matrix in enumerate(matrices):
        if matrix.ndim == 2 and scales[i] == 1.0 and 0 < 4 * matrix.numel() * vectors[i].dtype.itemsize <= size:
            kind = matrix.shape, matrix.stride(), matrix.dtype, vectors[i].shape
            alike.setdefault((matrix.untyped_storage().data_ptr(), *kind), []).append(i)
        else:
            units.append([i])
    for members in alike.values():
        members.sort(key=lambda i: matrices[i].storage_offset())
        first = members[0]
        count = size // (matrices[first].numel() * vectors[first].dtype.itemsize)
        for start in range(0, len(members), count):
            unit = members[start : start + count]
            whole = len(unit) > 1 and all(
                stacked_view([tensors[i] for i in unit]) is not None for tensors in (matrices, vectors, out)
            )
            units += [unit] if whole else [[i] for i in unit]
    return units
