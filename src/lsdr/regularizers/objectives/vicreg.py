"""VICReg: variance, invariance and covariance."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers.objectives.objective import Needs, Views, check_coefficients, off_diagonal, squared_norm


@dataclass(frozen=True)
class VICReg:
    r"""VICReg: equal views, standard deviations of at least 1, no covariances.

    .. math:: \lambda \tfrac{1}{D} \mathbb{E} \|z - z'\|^2
        + \mu \tfrac12 \sum_v \tfrac1D \sum_j \max\bigl(0, 1 - \sqrt{C^v_{jj} + \epsilon}\bigr)
        + \nu \sum_v \tfrac1D \sum_{i \neq j} (C^v_{ij})^2

    with unbiased covariances C of each view. Not negative; it sets the scale of z. One view: without invariance.
    O(N D^2).

    Source: Bardes, Ponce & LeCun 2022 (arXiv:2105.04906), eqs. 1 to 6, with the half before the variance term that
    the authors' code has and eq. 6 leaves out (facebookresearch/vicreg, main_vicreg.py, and its issue 26). One view:
    VCReg, Zhu et al. 2023 (arXiv:2306.13292).

    Args:
        invariance: lambda.
        variance: mu.
        covariance: nu.
    """

    invariance: float | int = 25.0
    variance: float | int = 25.0
    covariance: float | int = 1.0
    needs = Needs(covariance=True)

    def __post_init__(self) -> None:
        check_coefficients(self)

    def __call__(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Give the objective and its terms "invariance", "variance" and "covariance"."""
        unbiased = views.unbiased()
        deviations = (unbiased * views.variances + 1e-4).sqrt()
        squares = squared_norm(off_diagonal(views.need("covariances")))
        terms = {
            "invariance": views.gap.mean(),
            "variance": torch.relu(1 - deviations).mean(),
            "covariance": unbiased.square() * squares / deviations.shape[1],
        }
        total = self.invariance * terms["invariance"] + self.variance * terms["variance"]
        return total + self.covariance * terms["covariance"], terms
