"""The spectrum: what every probe measures and every statistic is a function of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Spectrum:
    r"""Singular values of an operator, or eigenvalues of a symmetric matrix, in descending order.

    Statistics are functions of the singular values :math:`\sigma_k` or of their squares :math:`\lambda_k`, and each
    says which. They take eigenvalues to be those of a Gram or covariance matrix, :math:`\lambda_k = \sigma_k^2`, so
    that a statistic of A and of A^T A is the same number, and refuse negative ones.

    Make one with `Spectrum.of`, which sorts; the constructor only checks.

    Example:
        >>> Spectrum.of([1.0, 3.0, 2.0]).values
        tensor([3., 2., 1.])
    """

    values: Float[Tensor, "k"]
    """The values, descending; differentiable where they came with a graph."""
    kind: Literal["singular_values", "eigenvalues"]
    """What the values are."""
    method: str = "exact"
    """How they were computed."""
    lower: Float[Tensor, "k"] | None = None
    """Lower bounds of the values; None where the values are all there is."""
    upper: Float[Tensor, "k"] | None = None
    """Upper bounds of the values."""
    residual: Float[Tensor, "k"] | None = None
    r"""How far an iterative method was from done, for the vector v (of norm 1) that the value came from.

    Of singular values :math:`|A^T A v - \theta v| / \theta` with :math:`\theta = |A v|^2`: relative to the squared
    singular value, so without a unit; 0 for a value of 0. Of eigenvalues :math:`|S v - \theta v|` with
    :math:`\theta = v^T S v`, in the values' own unit, since they may have either sign: an eigenvalue is that near.
    """

    def __post_init__(self) -> None:
        """Check; see `of` for what is raised."""
        if self.kind not in ("singular_values", "eigenvalues"):
            raise ValueError(f"kind must be 'singular_values' or 'eigenvalues', got {self.kind!r}")
        values = self.values.detach()
        if values.ndim != 1 or not len(values):
            raise ValueError(f"a spectrum needs values of shape (K,) with K >= 1, got shape {tuple(values.shape)}")
        if not bool(values.isfinite().all()):
            bad = int((~values.isfinite()).sum())
            raise ValueError(f"a spectrum needs finite values, got {bad} of {len(values)} that are nan or infinite")
        if bool((values[1:] > values[:-1]).any()):
            raise ValueError("the values must be in descending order: use Spectrum.of(values), which sorts them")
        if self.kind == "singular_values" and bool(values[-1] < 0):
            raise ValueError(
                f"singular values must not be negative, got {values[-1].item():g}: "
                'values of either sign are kind="eigenvalues"'
            )
        for name, bound in (("lower", self.lower), ("upper", self.upper), ("residual", self.residual)):
            if bound is not None and bound.shape != values.shape:
                raise ValueError(f"{name} must have the values' shape {tuple(values.shape)}, got {tuple(bound.shape)}")

    @classmethod
    def of(
        cls,
        values: Tensor | np.ndarray | Sequence[float | int],
        kind: Literal["singular_values", "eigenvalues"] = "singular_values",
        **rest: Any,
    ) -> "Spectrum":
        """Sort the values into a spectrum.

        Args:
            values: K >= 1 finite real numbers, shape (K,), in any order; not negative if singular values. Half
                precision and integers become float32; a tensor keeps its graph.
            kind: What the values are.
            **rest: The other fields; `lower`, `upper` and `residual` are in the order of the values given.

        Raises:
            TypeError: If the values are complex.
            ValueError: If they are none, not 1-D, not finite, or negative singular values.

        Example:
            >>> Spectrum.of(torch.tensor([0.5, 2.0]), kind="eigenvalues", upper=torch.tensor([0.6, 2.1])).upper
            tensor([2.1000, 0.6000])
        """
        given = _real(values)
        if given.ndim != 1:
            raise ValueError(f"a spectrum needs values of shape (K,) with K >= 1, got shape {tuple(given.shape)}")
        ordered, order = given.sort(descending=True, stable=True)
        for name in ("lower", "upper", "residual"):
            bound = rest.get(name)
            if bound is not None:
                bound = _real(bound)
                if bound.shape != given.shape:
                    raise ValueError(
                        f"{name} must have the values' shape {tuple(given.shape)}, got {tuple(bound.shape)}"
                    )
                rest[name] = bound[order.to(bound.device)]
        return cls(ordered, kind, **rest)

    def singular_values(self) -> Float[Tensor, "k"]:
        r"""The values as :math:`\sigma_k`: as they are, or the roots of eigenvalues.

        The gradient of the root at 0 is taken as 0.

        Raises:
            ValueError: If an eigenvalue is negative.
        """
        if self.kind == "singular_values":
            return self.values
        values = self.squares()
        positive = values > 0
        return torch.where(positive, torch.where(positive, values, 1).sqrt(), 0)

    def squares(self) -> Float[Tensor, "k"]:
        r"""The values as :math:`\lambda_k = \sigma_k^2`: squares of singular values, or eigenvalues as they are.

        Raises:
            ValueError: If an eigenvalue is negative.
        """
        if self.kind == "singular_values":
            return self.values.square()
        if bool(self.values[-1] < 0):
            raise ValueError(
                "this statistic is defined for eigenvalues of a Gram or covariance matrix, which are not negative; got "
                f"{self.values[-1].item():g}: clamp what is rounding, or pass absolute values as singular values"
            )
        return self.values

    def relative(self) -> "Spectrum":
        """The spectrum divided by its largest value (a constant to the gradient): nothing overflows when squared.

        Raises:
            ValueError: If the largest value is not positive, so that no ratio of values is defined.
        """
        largest = self.values[0].detach()
        if not bool(largest > 0):
            raise ValueError(
                f"this statistic is a ratio and needs a positive value, got a spectrum of {len(self.values)} values "
                f"whose largest is {largest.item():g}"
            )
        return Spectrum(self.values / largest, self.kind, self.method)


def _real(values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.is_complex():
        raise TypeError(f"a spectrum needs real values, got dtype {tensor.dtype}: take absolute values first")
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    return tensor
