"""Blocks on a diagonal: grouped layers."""

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.combine import common
from lsdr.linalg.dense import spectral_dtype
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.operator import LinearOperator


class BlockDiagonal(LinearOperator):
    """Operators side by side, each on inputs and outputs of its own.

    Its singular values are those of all blocks together, so its norm is the largest block's norm: not the product of
    the blocks' norms, and not the norm of their weights stacked as they are stored.

    Args:
        *blocks: One or more operators. For a grouped layer's weight take `Grouped`, one product for all groups.

    Raises:
        ValueError: If there are none or their devices differ.
    """

    def __init__(self, *blocks: LinearOperator):
        dtype, device = common(blocks)
        super().__init__((sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)), dtype, device)
        self.blocks = blocks

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        parts = zip(self.blocks, x.split([block.shape[1] for block in self.blocks], -1), strict=True)
        return torch.cat([block.matvec(part.to(block.dtype)).to(self.dtype) for block, part in parts], -1)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        parts = zip(self.blocks, y.split([block.shape[0] for block in self.blocks], -1), strict=True)
        return torch.cat([block.adjoint(part.to(block.dtype)).to(self.dtype) for block, part in parts], -1)

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x."""
        parts = zip(self.blocks, x.split([block.shape[1] for block in self.blocks], -1), strict=True)
        return torch.cat([block.gram(part.to(block.dtype)).to(self.dtype) for block, part in parts], -1)


class Grouped(LinearOperator):
    """The block-diagonal matrix of a grouped layer's weight, a view of it: one batched product for all groups.

    Args:
        weight: Shape (groups x m, n, ...), what follows the rows flattened: a grouped convolution's stored kernel.
        groups: Groups of rows.

    Raises:
        ValueError: If the groups do not divide the rows.

    Example:
        >>> Grouped(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2).matrix()
        tensor([[1., 2., 0., 0.],
                [0., 0., 3., 4.]])
    """

    def __init__(self, weight: Float[Tensor, "m ..."], groups: int):
        if groups < 1 or weight.shape[0] % groups:
            raise ValueError(f"groups must divide the weight's first dimension {weight.shape[0]}, got {groups}")
        self.weight = weight.detach().flatten(1).unflatten(0, (groups, -1))
        n = self.weight.shape[2]
        super().__init__((weight.shape[0], groups * n), spectral_dtype(weight.dtype), weight.device)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        return self._multiply(x, self.weight.mT)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        return self._multiply(y, self.weight)

    def _multiply(self, x: Tensor, blocks: Tensor) -> Tensor:
        with full_precision(self.device):
            groups = x.reshape(-1, len(blocks), blocks.shape[1]).transpose(0, 1)
            return torch.bmm(groups, blocks.to(self.dtype)).transpose(0, 1).reshape(*x.shape[:-1], -1)
