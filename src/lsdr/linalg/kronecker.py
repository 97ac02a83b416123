"""Kronecker products: LoKr."""

from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.combine import common
from lsdr.linalg.dense import Dense
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.operator import LinearOperator


class Kronecker(LinearOperator):
    r"""scale * (A kron B), never multiplied out; its singular values are the products of A's and B's.

    .. math:: (A \otimes B)\, \mathrm{vec}(X) = \mathrm{vec}(A X B^T)

    with X of shape (inputs of A, inputs of B), its rows one after the other. A LoKr of a convolution is the Kronecker
    product of w1 (a, b) and w2 (c, d, kh, kw) flattened after its first dimension, and gives the kernel update
    reshaped to (a c, b d kh kw). Either factor may be an operator: `LowRank(w2_a, w2_b)`, `LowRank.with_core(...)`.

    Args:
        a: First factor, a matrix or an operator.
        b: Second factor; tensors of more than two dimensions are flattened after the first.
        scale: A factor.

    Raises:
        ValueError: If the factors are on different devices.

    Example:
        >>> import torch
        >>> Kronecker(torch.eye(2), torch.tensor([[1.0, 2.0]])).matrix()
        tensor([[1., 2., 0., 0.],
                [0., 0., 1., 2.]])
    """

    def __init__(self, a: Tensor | LinearOperator, b: Tensor | LinearOperator, scale: float | int = 1.0):
        self.a = Dense(a) if isinstance(a, Tensor) else a
        self.b = Dense(b) if isinstance(b, Tensor) else b
        self.scale = float(scale)
        dtype, device = common((self.a, self.b))
        super().__init__((self.a.shape[0] * self.b.shape[0], self.a.shape[1] * self.b.shape[1]), dtype, device)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        (ma, na), (mb, nb) = self.a.shape, self.b.shape
        with full_precision(self.device):
            grid = x.reshape(*x.shape[:-1], na, nb)
            if mb * na * (nb + ma) <= ma * nb * (na + mb):  # multiply first by the factor that leaves less to do
                product = self._along_a(self.b.matvec(grid.to(self.b.dtype)), adjoint=False)
            else:
                product = self.b.matvec(self._along_a(grid, adjoint=False).to(self.b.dtype))
            return self.scale * product.to(self.dtype).flatten(-2)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        (ma, na), (mb, nb) = self.a.shape, self.b.shape
        with full_precision(self.device):
            grid = y.reshape(*y.shape[:-1], ma, mb)
            if nb * ma * (mb + na) <= na * mb * (ma + nb):
                product = self._along_a(self.b.adjoint(grid.to(self.b.dtype)), adjoint=True)
            else:
                product = self.b.adjoint(self._along_a(grid, adjoint=True).to(self.b.dtype))
            return self.scale * product.to(self.dtype).flatten(-2)

    def _along_a(self, grid: Tensor, adjoint: bool) -> Tensor:
        columns = grid.mT.to(self.a.dtype)
        return (self.a.adjoint(columns) if adjoint else self.a.matvec(columns)).mT
