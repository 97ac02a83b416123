"""A stored matrix as an operator, read once per product with A'A."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.operator import LinearOperator

# A block of rows stays in the cache of a core between A v and A'(A v): the second product costs no memory traffic.
_CACHED_BYTES = 1 << 20


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

    def rows(self, size: int = _CACHED_BYTES) -> list[Tensor]:
        """The matrix in blocks of rows of about `size` bytes, as stored; all of it on a GPU."""
        n = self.shape[1]
        if self.device.type != "cpu":
            return [self.weight]
        return list(self.weight.split(max(1, math.ceil(size / max(n * self.dtype.itemsize, 1)))))

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
        parts = y.split([len(block) for block in blocks], -1)
        return torch.stack([part @ block.to(self.dtype) for part, block in zip(parts, blocks, strict=True)]).sum(0)

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x, reading each weight once."""
        flat = x.reshape(-1, x.shape[-1])
        total = torch.zeros_like(flat)
        single = len(flat) == 1
        for stored in self.rows():
            block = stored.to(self.dtype)
            if single:  # a matrix-vector product runs at the memory's speed, a thin matrix product does not
                total[0].addmv_(block.mT, block.mv(flat[0]))
            else:
                total.addmm_(flat @ block.mT, block)
        return total.view_as(x)

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself, in the type of the products."""
        return self.weight.to(self.dtype)
