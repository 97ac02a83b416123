"""Frobenius norms of operators, exact, without writing them out where their structure allows."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from lsdr.linalg.block_diagonal import BlockDiagonal, Grouped
from lsdr.linalg.combine import Product, Scaled, Sum
from lsdr.linalg.dense import Dense
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import Adjoint, LinearOperator
from lsdr.linalg.sliding_kernel import SlidingKernel
from lsdr.linalg.widen import rows, widened

_ROW_BYTES = 1 << 26


def frobenius(operator: LinearOperator) -> float:
    r"""The Frobenius norm, the root of the sum of the squared singular values, in float64.

    By structure where there is one: low rank and thin products from their QRs, Kronecker products and blocks from their
    parts, zero-padded convolutions tap by tap with the number of positions each tap is inside the image. Sums (a base
    weight and its adapter), elementwise products and the rest by blocks of rows, 64 MiB at a time, never the whole
    matrix. The result is exact to rounding of the operator's own size: the norm of a difference of nearly equal
    operators is good to about 1e-16 of the norm of either.

    Args:
        operator: The operator.

    Raises:
        ValueError: If an entry is not finite.

    Example:
        >>> frobenius(Kronecker(torch.eye(2), torch.tensor([[3.0, 4.0]])))
        7.0710
    """
    with full_precision(operator.device):
        norm = _frobenius(operator)
    if not math.isfinite(norm):
        raise ValueError(f"{operator!r} has entries that are nan or infinite, or too large for a norm in float64")
    return norm


def magnitude(operator: LinearOperator) -> float:
    """What rounding in the products is relative to: norms of the parts, before anything cancels."""
    match operator:
        case Adjoint():
            return magnitude(operator.of)
        case Scaled():
            return abs(operator.factor) * magnitude(operator.operator)
        case Sum():
            return sum(map(magnitude, operator.operators))
        case Product():
            return math.prod(map(magnitude, operator.operators))
        case BlockDiagonal():
            return math.hypot(*map(magnitude, operator.blocks))
        case LowRank():
            return abs(operator.scale) * _norm([operator.up]) * _norm([operator.down])
        case Hadamard():
            return abs(operator.scale) * magnitude(operator.first) * magnitude(operator.second)
        case Kronecker():
            return abs(operator.scale) * magnitude(operator.a) * magnitude(operator.b)
        case SlidingKernel():
            return math.sqrt(math.prod((*operator.kernel, *operator.positions))) * _norm([operator.weight])
        case Dense() | Grouped():
            return _norm([operator.weight])
    return _frobenius(operator) * (1.0 if operator.dtype == torch.float64 else 2.0**29)  # its products are float32's


def _frobenius(operator: LinearOperator) -> float:
    match operator:
        case Dense():
            return _norm(operator.rows())
        case Adjoint():
            return _frobenius(operator.of)
        case Scaled():
            return abs(operator.factor) * _frobenius(operator.operator)
        case BlockDiagonal():
            return math.hypot(*map(_frobenius, operator.blocks))
        case Grouped():
            return _norm([operator.weight])
        case Kronecker():
            return abs(operator.scale) * _frobenius(operator.a) * _frobenius(operator.b)
        case LowRank():
            return _norm([core(operator)])
        case Product() if 2 * min(inner := inner_dimensions(operator)) < min(operator.shape):
            return _norm([core(thin(operator, 1 + inner.index(min(inner))))])
        case SlidingKernel() if (seen := operator.tap_counts()) is not None:
            taps = [torch.linalg.vector_norm(tap.double()) for tap in operator.weight.flatten(2).unbind(-1)]
            return _norm([torch.stack(taps) * seen.flatten().sqrt().to(operator.device)])
    m, n = operator.shape
    step = max(1, _ROW_BYTES // (8 * n))
    return _norm(rows(operator, start, min(start + step, m)) for start in range(0, m, step))


def _norm(blocks: Iterable[Tensor]) -> float:
    """Root of the sum of squares, none of which overflows or vanishes."""
    total = 0.0
    for block in blocks:
        if block.numel():
            wide = block.double()
            largest = wide.abs().amax()
            norm = largest * torch.linalg.vector_norm(wide / torch.where(largest > 0, largest, 1.0))
            total = math.hypot(total, float(norm))
    return total


def inner_dimensions(operator: Product) -> list[int]:
    """The dimensions between the factors."""
    return [left.shape[1] for left in operator.operators[:-1]] or [min(operator.shape)]


def core(operator: LowRank) -> Tensor:
    """What is left of scale * up @ down between two orthonormal bases: min(m, r) x min(n, r), the same values."""
    up, down = operator.factors(torch.float64)
    if not bool(up.isfinite().all()) or not bool(down.isfinite().all()):
        raise ValueError("the factors of a low-rank operator have entries that are nan or infinite: no spectrum")
    values: Tensor = operator.scale * (torch.linalg.qr(up, mode="r").R @ torch.linalg.qr(down.mT, mode="r").R.mT)
    return values


def thin(operator: Product, split: int) -> LowRank:
    """A product as two thin matrices, cut at an inner dimension."""
    left = widened(Product(*operator.operators[:split]))
    right = widened(Product(*operator.operators[split:]))
    eye = torch.eye(left.shape[1], dtype=torch.float64, device=operator.device)
    return LowRank(left.matvec(eye.to(left.dtype)).mT.double(), right.adjoint(eye.to(right.dtype)).double())
