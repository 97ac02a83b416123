"""Operators in float64: exact results need their factors widened before they are multiplied, not after."""

import torch
from jaxtyping import Float
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


def widened(operator: LinearOperator) -> LinearOperator:
    """The same operator with products in float64; one of a kind not known here is returned as it is."""
    if operator.dtype == torch.float64:
        return operator
    match operator:
        case Dense():
            return Dense(operator.weight.double())
        case Adjoint():
            return Adjoint(widened(operator.of))
        case Scaled():
            return Scaled(widened(operator.operator), operator.factor)
        case Sum():
            return Sum(*map(widened, operator.operators))
        case Product():
            return Product(*map(widened, operator.operators))
        case BlockDiagonal():
            return BlockDiagonal(*map(widened, operator.blocks))
        case Grouped():
            return Grouped(operator.weight.double().flatten(0, 1), len(operator.weight))
        case LowRank():
            return LowRank(*operator.factors(torch.float64), operator.scale)
        case Hadamard():
            first, second = (LowRank(*f.factors(torch.float64), f.scale) for f in (operator.first, operator.second))
            return Hadamard(first, second, operator.scale)
        case Kronecker():
            return Kronecker(widened(operator.a), widened(operator.b), operator.scale)
        case SlidingKernel():
            return operator.to_float64()
    return operator


def rows(operator: LinearOperator, start: int, stop: int) -> Float[Tensor, "rows n"]:
    """Some rows of an operator's matrix in float64, without the others where the structure allows."""
    with full_precision(operator.device):
        match operator:
            case Dense():
                return operator.weight[start:stop].double()
            case LowRank():
                up, down = operator.factors(torch.float64)
                return operator.scale * (up[start:stop] @ down)
            case Hadamard():
                return operator.rows(start, stop, torch.float64)
            case Scaled():
                return operator.factor * rows(operator.operator, start, stop)
            case Sum():
                total = rows(operator.operators[0], start, stop)
                for term in operator.operators[1:]:
                    total = total + rows(term, start, stop)
                return total
        wide = widened(operator)
        chosen = torch.zeros(stop - start, operator.shape[0], dtype=wide.dtype, device=operator.device)
        chosen.diagonal(start).fill_(1.0)
        return wide.adjoint(chosen).double()
