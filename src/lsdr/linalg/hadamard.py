"""Elementwise products of two low-rank matrices: LoHa."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.combine import common
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import LinearOperator

_WORKING_BYTES = 1 << 26


class Hadamard(LinearOperator):
    r"""scale * (first o second), elementwise, never holding the m x n product.

    With :math:`W_k = B_k A_k` of rank :math:`r_k` the elementwise product is of rank :math:`r_1 r_2` at most, a product
    of two Khatri-Rao matrices, and

    .. math:: (W x)_m = \sum_{ij} B_1[m, i]\, B_2[m, j] \sum_n A_1[i, n]\, x_n A_2[j, n]

    costs :math:`2 r_1 r_2 (m + n)` multiplications a vector. Many vectors at high rank are multiplied by blocks of
    rows of W instead, whichever is less work; both hold 64 MiB at a time.

    A LoHa of a convolution is two factored kernels, `LowRank(w1_a, w1_b)` with w1_b flattened after its first
    dimension, or `LowRank.with_core(w1_a.T, t1, w1_b)` for the Tucker form.

    Args:
        first: One factored matrix; its scale counts.
        second: The other, of the same shape.
        scale: A factor.

    Raises:
        ValueError: If their shapes or devices differ.

    Example:
        >>> ones = LowRank(torch.ones(2, 1), torch.ones(1, 3))
        >>> Hadamard(ones, LowRank(torch.tensor([[1.0], [2.0]]), torch.ones(1, 3))).matrix()
        tensor([[1., 1., 1.],
                [2., 2., 2.]])
    """

    def __init__(self, first: LowRank, second: LowRank, scale: float | int = 1.0):
        if first.shape != second.shape:
            raise ValueError(f"an elementwise product needs operators of one shape, got {first.shape}, {second.shape}")
        dtype, device = common((first, second))
        super().__init__(first.shape, dtype, device)
        self.first, self.second, self.scale = first, second, float(scale)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        return self._multiply(x, transposed=False)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        return self._multiply(y, transposed=True)

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself: for small operators and for tests."""
        return self.rows(0, self.shape[0], self.dtype)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Float[Tensor, "rows n"]:
        """Some rows of A, computed in a type."""
        with full_precision(self.device):
            (up1, down1), (up2, down2) = self.first.factors(dtype), self.second.factors(dtype)
            return (self._scale * (up1[start:stop] @ down1)) * (up2[start:stop] @ down2)

    def low_rank(self, dtype: torch.dtype | None = None) -> LowRank:
        """The same operator as a product of two thin matrices of rank r1 r2, by the Khatri-Rao identity."""
        chosen = dtype or self.dtype
        with full_precision(self.device):
            (up1, down1), (up2, down2) = self.first.factors(chosen), self.second.factors(chosen)
            up = (up1[:, :, None] * up2[:, None, :]).flatten(1)
            down = (down1[:, None, :] * down2[None, :, :]).flatten(0, 1)
        return LowRank(up, down, self._scale)

    @property
    def _scale(self) -> float:
        return self.scale * self.first.scale * self.second.scale

    def _multiply(self, x: Tensor, transposed: bool) -> Tensor:
        m, n = self.shape
        r1, r2 = self.first.up.shape[1], self.second.up.shape[1]
        flat = x.reshape(-1, x.shape[-1])
        with full_precision(self.device):
            if len(flat) * r1 * r2 * (m + n) <= m * n * (r1 + r2 + len(flat)):
                y = self._by_ranks(flat, transposed)
            else:
                y = self._by_rows(flat, transposed)
            return y.reshape(*x.shape[:-1], y.shape[-1])

    def _by_ranks(self, flat: Tensor, transposed: bool) -> Tensor:
        (up1, down1), (up2, down2) = self.first.factors(self.dtype), self.second.factors(self.dtype)
        left1, right1, left2, right2 = up1, down1, up2, down2
        if transposed:
            left1, right1, left2, right2 = down1.mT, up1.mT, down2.mT, up2.mT
        held = max(1, left1.shape[1] * right1.shape[1], left1.shape[0] * left2.shape[1]) * self.dtype.itemsize
        parts = []
        for vectors in flat.split(max(1, _WORKING_BYTES // held)):
            inner = (right1 * vectors[:, None, :]) @ right2.mT  # (vectors, r1, r2)
            parts.append(self._scale * ((left1 @ inner) * left2).sum(-1))
        return torch.cat(parts)

    def _by_rows(self, flat: Tensor, transposed: bool) -> Tensor:
        m, n = self.shape
        step = max(1, math.ceil(_WORKING_BYTES / max(1, n * self.dtype.itemsize)))
        blocks = [(start, min(start + step, m)) for start in range(0, m, step)]
        if not transposed:
            return torch.cat([flat @ self.rows(start, stop, self.dtype).mT for start, stop in blocks], -1)
        y = flat.new_zeros(len(flat), n)
        for start, stop in blocks:
            y += flat[:, start:stop] @ self.rows(start, stop, self.dtype)
        return y
