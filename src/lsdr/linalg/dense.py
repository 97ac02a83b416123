"""A stored matrix as an operator, read once per product with A'A."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.weight_pass import row_blocks, weight_pass


def spectral_dtype(stored: torch.dtype) -> torch.dtype:
    """What spectra of weights of this type are computed in: float64 for float64, float32 for everything else."""
    return torch.float64 if stored == torch.float64 else torch.float32


class Dense(LinearOperator):
    """A stored matrix, never copied: half-precision and float8 storage is widened block by block.

    Args:
        weight: Shape (m, n, ...), what follows the rows flattened; any floating type, a view is as good as a tensor.
    """

    def __init__(self, weight: Float[Tensor, "m ..."]):
        self.weight = weight.detach().flatten(1)
        super().__init__((self.weight.shape[0], self.weight.shape[1]), spectral_dtype(weight.dtype), weight.device)

    def rows(self) -> Sequence[Tensor]:
        """The matrix in blocks of rows, as stored, of which one can be widened without much memory."""
        return row_blocks(self.weight, self.shape[1] * self.dtype.itemsize)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        if self.weight.dtype == self.dtype:
            return x @ self.weight.mT
        return torch.cat([x @ block.to(self.dtype).mT for block in self.rows()], -1)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        if self.weight.dtype == self.dtype:
            return y @ self.weight
        blocks = self.rows()
        total = y.new_zeros(*y.shape[:-1], self.shape[1])
        for part, block in zip(y.split([len(block) for block in blocks], -1), blocks, strict=True):
            total += part @ block.to(self.dtype)
        return total

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x, reading each weight once."""
        flat = x.reshape(-1, self.shape[1])
        out = flat.new_empty(flat.shape)
        weight_pass(self.weight, flat, out, squares=False)
        return out.view_as(x)

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself, in the type of the products."""
        return self.weight.to(self.dtype)
