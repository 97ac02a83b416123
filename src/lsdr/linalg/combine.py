"""Operators made of operators: sums, products and multiples."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.operator import LinearOperator


def common(operators: tuple[LinearOperator, ...]) -> tuple[torch.dtype, torch.device]:
    """The type and the device of what is made of these operators: float64 where one of them is.

    Raises:
        ValueError: If there are none, or they are on different devices.
    """
    if not operators:
        raise ValueError("at least one operator is needed, got none")
    devices = {operator.device for operator in operators}
    if len(devices) > 1:
        raise ValueError(f"all operators must be on one device, got {sorted(map(str, devices))}: move their weights")
    double = any(operator.dtype == torch.float64 for operator in operators)
    return torch.float64 if double else torch.float32, operators[0].device


class Sum(LinearOperator):
    """A + B + ...: a base weight and its adapters, never added up.

    Args:
        *operators: One or more of one shape; a difference is `Sum(a, Scaled(b, -1.0))`.

    Raises:
        ValueError: If there are none, or their shapes or devices differ.
    """

    def __init__(self, *operators: LinearOperator):
        dtype, device = common(operators)
        if len({operator.shape for operator in operators}) > 1:
            raise ValueError(f"a sum needs operators of one shape, got {[operator.shape for operator in operators]}")
        super().__init__(operators[0].shape, dtype, device)
        self.operators = operators

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        y = self.operators[0].matvec(x.to(self.operators[0].dtype)).to(self.dtype)
        for operator in self.operators[1:]:
            y = y + operator.matvec(x.to(operator.dtype))
        return y

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        x = self.operators[0].adjoint(y.to(self.operators[0].dtype)).to(self.dtype)
        for operator in self.operators[1:]:
            x = x + operator.adjoint(y.to(operator.dtype))
        return x

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself: for small operators and for tests."""
        total = self.operators[0].matrix().to(self.dtype)
        for operator in self.operators[1:]:
            total = total + operator.matrix()
        return total


class Product(LinearOperator):
    """A B ... Z, applied from the right: x is multiplied by Z first.

    Args:
        *operators: One or more; each has as many inputs as the next has outputs. The query-key form of an attention
            head is `Product(Adjoint(Dense(query)), Dense(key))` with (head, model) weights.

    Raises:
        ValueError: If there are none, their shapes do not chain or their devices differ.
    """

    def __init__(self, *operators: LinearOperator):
        dtype, device = common(operators)
        shapes = [operator.shape for operator in operators]
        if any(left[1] != right[0] for left, right in pairwise(shapes)):
            raise ValueError(f"each factor needs as many inputs as the next has outputs, got shapes {shapes}")
        super().__init__((shapes[0][0], shapes[-1][1]), dtype, device)
        self.operators = operators

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        for operator in reversed(self.operators):
            x = operator.matvec(x.to(operator.dtype))
        return x.to(self.dtype)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        for operator in self.operators:
            y = operator.adjoint(y.to(operator.dtype))
        return y.to(self.dtype)


class Scaled(LinearOperator):
    """A number times an operator.

    Args:
        operator: The operator.
        factor: The number, of either sign, or 0.
    """

    def __init__(self, operator: LinearOperator, factor: float | int):
        super().__init__(operator.shape, operator.dtype, operator.device)
        self.operator = operator
        self.factor = float(factor)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        return self.factor * self.operator.matvec(x)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        return self.factor * self.operator.adjoint(y)

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x."""
        return self.factor**2 * self.operator.gram(x)

    def matrix(self) -> Float[Tensor, "m n"]:
        """A itself: for small operators and for tests."""
        return self.factor * self.operator.matrix()
