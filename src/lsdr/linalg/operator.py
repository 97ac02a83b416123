"""What an operator is: a matrix known by its products with vectors."""

import torch
from jaxtyping import Float
from torch import Tensor


class LinearOperator:
    r"""A matrix A of shape (m, n), known by its products with vectors and with A transposed.

    Vectors are the last dimension, as for `torch.nn.Linear`, and any number of them is multiplied at once. A subclass
    gives `matvec` and `adjoint`, and overrides the rest where its structure makes that exact or cheap. Nothing here is
    differentiable: spectra are measured, not trained through.

    Args:
        shape: (m, n), outputs and inputs.
        dtype: What products are computed in, float32 or float64, whatever the weights are stored in.
        device: Where the products are computed.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device):
        self.shape = shape
        self.dtype = dtype
        self.device = device

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        raise NotImplementedError

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        raise NotImplementedError

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x; in one pass over the weights where the structure allows."""
        return self.adjoint(self.matvec(x))

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself: for small operators and for tests."""
        return self.matvec(torch.eye(self.shape[1], dtype=self.dtype, device=self.device)).mT

    def __repr__(self) -> str:
        m, n = self.shape
        return f"{type(self).__name__}({m} x {n}, {str(self.dtype).removeprefix('torch.')})"


class Adjoint(LinearOperator):
    """The adjoint of an operator: the same singular values, inputs and outputs changed over."""

    def __init__(self, of: LinearOperator):
        super().__init__((of.shape[1], of.shape[0]), of.dtype, of.device)
        self.of = of

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        return self.of.adjoint(x)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        return self.of.matvec(y)
