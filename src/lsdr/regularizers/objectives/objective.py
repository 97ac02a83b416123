"""What an objective of representation learning is: a function of the moments of one or two views."""

import math
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.moments import Moments


@dataclass(frozen=True)
class Needs:
    """Which statistics an objective is a function of, besides means, variances and the gap between the views."""

    covariance: bool = False
    """The covariance of each view."""
    cross_covariance: bool = False
    """The covariance of the first view with the second."""
    overlap: bool = False
    """The summed squares of the inner products of each example's two views."""
    largest_norm: float | None = None
    """Rows longer than this are scaled down to it first."""
    slices: int = 0
    """Random directions in which the distribution is looked at."""


@dataclass(frozen=True)
class Views:
    """The statistics of two views of the same examples, or of one view; those not asked for are None.

    Where examples have weights w, means are weighted and each sum over pairs counts w_i w_j.
    """

    count: Float[Tensor, ""]
    """Number of examples: the sum of their weights."""
    pairs: Float[Tensor, ""]
    """Ordered pairs of different examples: count (count - 1)."""
    means: Float[Tensor, "v d"]
    variances: Float[Tensor, "v d"]
    """Divided by the count."""
    gap: Float[Tensor, " d"]
    """Mean squared difference of the two views in each dimension; 0 for one view."""
    covariances: Float[Tensor, "v d d"] | None = None
    cross_covariance: Float[Tensor, "d d"] | None = None
    overlap: Float[Tensor, ""] | None = None
    waves: Float[Tensor, "v 2 t k"] | None = None
    """Means of cos(t a'z) and sin(t a'z) for every knot t and every direction a."""

    @classmethod
    def of_moments(cls, moments: Moments) -> "Views":
        """The statistics that moments of one or two views hold: all but the overlap and the waves.

        Args:
            moments: Of rows (N, D), in torch; the two views equally wide.

        Raises:
            ValueError: If there are fewer than 2 examples.

        Example:
            >>> from lsdr.regularizers.objectives.vicreg import VICReg
            >>> a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
            >>> VICReg()(Views.of_moments(Moments.of(a, b)))[0]
            tensor(25.)
        """
        if moments.count < 2:
            raise ValueError(f"an objective compares examples and needs 2 or more, got {moments.count}")
        count = torch.as_tensor(float(moments.count), dtype=moments.cross.dtype, device=moments.cross.device)
        mean, covariance = moments.mean, moments.covariance()
        two = moments.cross.shape[0] > covariance.shape[0]
        views, covariances, cross = [mean], [covariance], None
        gap = torch.zeros_like(mean)
        if two:
            views.append(moments.y.mean)
            covariances.append(moments.y.covariance())
            cross = moments.cross_covariance()
            spread = covariances[0].diagonal() + covariances[1].diagonal() - 2 * cross.diagonal()
            gap = spread + (views[0] - views[1]).square()
        stacked = torch.stack(covariances)
        variances = stacked.diagonal(dim1=1, dim2=2)
        return cls(count, count * (count - 1), torch.stack(views), variances, gap, stacked, cross)

    def need(self, name: str) -> Tensor:
        """A statistic that must be there.

        Raises:
            ValueError: If it is not.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(
                f"the objective is a function of the {name} too, which these statistics do not hold: give it the rows, "
                "SpectralObjective(...).of(x, y)"
            )
        return value

    def cross(self) -> Float[Tensor, "d d"]:
        """Covariance of the first view with the second; of one view with itself."""
        return self.need("covariances")[0] if len(self.means) == 1 else self.need("cross_covariance")

    def unbiased(self) -> Float[Tensor, ""]:
        """What turns a covariance divided by the count into the unbiased one: count / (count - 1)."""
        return self.count.square() / self.pairs


@runtime_checkable
class Objective(Protocol):
    """A frozen dataclass of coefficients that can be called."""

    @property
    def needs(self) -> Needs:
        """The statistics it is a function of."""

    def __call__(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Give the value to be minimised, and its terms by name, without their coefficients."""


def off_diagonal(matrix: Float[Tensor, "*v d d"]) -> Float[Tensor, "*v d d"]:
    """The matrix with zeros on its diagonal: their squares summed lose nothing to the diagonal's rounding."""
    return torch.diagonal_scatter(matrix, torch.zeros_like(matrix[..., 0]), dim1=-2, dim2=-1)


def squared_norm(values: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Sum of squares, reading the values once there and once back."""
    norm: Tensor = torch.linalg.vector_norm(values)
    return norm.square()


def check_coefficients(objective: Any) -> None:
    """Refuse coefficients that are negative or not finite.

    Raises:
        ValueError: If one is.
    """
    for field in fields(objective):
        value = getattr(objective, field.name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{field.name} must be finite and not negative, got {value}")
