"""Barlow Twins: the cross-correlation of the two views is the identity."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers.objectives.objective import Needs, Views, check_coefficients, off_diagonal, squared_norm

# What batch normalisation adds to a variance: the authors standardise with it.
EPSILON = 1e-5


@dataclass(frozen=True)
class BarlowTwins:
    r"""Barlow Twins: every dimension agrees with itself in the other view and with no other dimension.

    .. math:: \sum_i (1 - R_{ii})^2 + \lambda \sum_{i \neq j} R_{ij}^2, \qquad
        R_{ij} = C_{z_i z'_j} \big/ \sqrt{(C_{z_i z_i} + \epsilon)(C_{z'_j z'_j} + \epsilon)}

    Not negative; invariant to the scale of every dimension. One view: R is its correlation, and the redundancy is all
    there is. O(N D^2).

    Source: Zbontar et al. 2021 (arXiv:2103.03230), eqs. 1 and 2; epsilon is that of the batch normalisation in the
    authors' code (facebookresearch/barlowtwins, main.py), right over ranks only where that is synchronised.

    Args:
        redundancy: lambda.
    """

    redundancy: float | int = 0.0051
    needs = Needs(cross_covariance=True)

    def __post_init__(self) -> None:
        check_coefficients(self)

    def __call__(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Give the objective and its terms "invariance" and "redundancy"."""
        scales = (views.variances + EPSILON).rsqrt()
        correlation = views.cross() * scales[0][:, None] * scales[-1]
        terms = {
            "invariance": (1 - correlation.diagonal()).square().sum(),
            "redundancy": squared_norm(off_diagonal(correlation)),
        }
        return terms["invariance"] + self.redundancy * terms["redundancy"], terms
