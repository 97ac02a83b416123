"""Log participation ratio: equal views that use as many directions as they can."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers.objectives.objective import Needs, Views, check_coefficients, off_diagonal

# Added to variances before they divide, as batch normalisation does.
EPSILON = 1e-5


@dataclass(frozen=True)
class LogParticipationRatio:
    r"""Log participation ratio: standardised views that are equal and use as many directions as they can.

    .. math:: -\sum_v \log \frac{(\operatorname{tr} R^v)^2}{\|R^v\|_F^2}
        + \lambda \tfrac1D \sum_j \mathbb{E} (\hat z_j - \hat z'_j)^2
        = \sum_v \log \tfrac{1}{D^2} \|R^v\|_F^2 + \lambda \tfrac2D \sum_j (1 - R^{zz'}_{jj})

    with the correlation R of each view and the standardised dimensions z^. The first part is in [-2 log D, 0] (-log D
    for one view); the whole is invariant to the scale of every dimension. O(N D^2), no eigenvalues.

    Source: FroSSL, Skean et al. 2024 (arXiv:2310.02903), eqs. 3 to 6, where the columns have norm sqrt(D), not
    sqrt(N), so that the authors' weight of invariance is D / N times 1: 4 for the 1024 dimensions and 256 examples of
    their CIFAR-10 runs, and here always, whatever the batch. We keep the diagonal of R exactly 1, also for a
    dimension that is constant: this costs invariance instead, also of one view.

    Args:
        invariance: lambda.
    """

    invariance: float | int = 4.0
    needs = Needs(covariance=True)

    def __post_init__(self) -> None:
        check_coefficients(self)

    def __call__(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Give the objective and its terms "invariance" and "log_participation_ratio" (mean over views)."""
        dimensions = views.means.shape[1]
        scales = (views.variances + EPSILON).rsqrt()
        correlations = off_diagonal(views.need("covariances")) * scales[:, :, None] * scales[:, None, :]
        logs = (
            2 * views.means.new_tensor(dimensions).log()
            - (dimensions + torch.linalg.vector_norm(correlations, dim=(1, 2)).square()).log()
        )
        # The standardised gap is that of the views less that of their means, over both their deviations.
        shift = (views.means[0] - views.means[-1]).square()
        shared = (views.variances[0] + views.variances[-1] - (views.gap - shift)) / 2
        agreement = shared * scales[0] * scales[-1]
        invariance = 2 * (1 - agreement).mean()
        terms = {"invariance": invariance, "log_participation_ratio": logs.mean()}
        return self.invariance * invariance - logs.sum(), terms
