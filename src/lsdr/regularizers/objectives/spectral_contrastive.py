"""Spectral contrastive loss: a low-rank factor of the graph that the views make."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers.objectives.objective import Needs, Views, check_coefficients


@dataclass(frozen=True)
class SpectralContrastive:
    r"""Spectral contrastive loss: inner products large within a pair, small between different examples.

    .. math:: \tfrac1\mu \Bigl[ -2\, \mathbb{E}\, z^\top z'
        + \tfrac{1}{N(N-1)} \sum_{i \neq j} (z_i^\top z'_j)^2 \Bigr], \qquad
        \sum_{i \neq j} (z_i^\top z'_j)^2 = N^2 \operatorname{tr} M M' - \sum_i (z_i^\top z'_i)^2

    with the uncentred second moments M, M' of the views and rows longer than sqrt(mu) scaled down to it. Exact, for
    the last sum is carried along; no pairs are formed. Its least value is not 0 but minus the sum of the largest
    squared eigenvalues of the graph. One view: each example is its own pair. O(N D^2).

    Source: HaoChen et al. 2021 (arXiv:2106.04156), eq. 6, normed and divided as in the authors' code
    (jhaochenz96/spectral_contrastive_learning, models/spectral.py).

    Args:
        mu: Largest squared norm: 1 for CIFAR-10, 10 for ImageNet.
    """

    mu: float | int = 1.0

    def __post_init__(self) -> None:
        check_coefficients(self)
        if not self.mu:
            raise ValueError("mu must be positive: it is the largest squared norm")

    @property
    def needs(self) -> Needs:
        """Covariances, the overlap of the pairs, rows of norm sqrt(mu) at most."""
        return Needs(covariance=True, overlap=True, largest_norm=self.mu**0.5)

    def __call__(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Give the objective and its terms "attraction" and "repulsion", both divided by mu."""
        covariances, means = views.need("covariances"), views.means
        seconds = covariances + means[:, :, None] * means[:, None, :]
        norms = (views.variances + means.square()).sum(1)
        inner = (norms[0] + norms[-1] - views.gap.sum()) / 2
        between = views.count.square() * (seconds[0] * seconds[-1]).sum() - views.need("overlap")
        terms = {"attraction": -2 * inner / self.mu, "repulsion": between / views.pairs / self.mu}
        return terms["attraction"] + terms["repulsion"], terms
