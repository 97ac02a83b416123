"""How different samples are from one another, and from the training data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.measures.nearest import nearest


@dataclass(frozen=True)
class Diversity:
    """Diversity in pixel space."""

    variance: Float[Tensor, ""]
    """Total variance of the samples over the data's; 1 matches the data, inf or nan if the data do not vary."""
    nearest_neighbour: Float[Tensor, ""]
    """Mean distance from a sample to the sample nearest to it, as root mean square difference of pixels."""
    nearest_train: Float[Tensor, ""]
    """The same to the nearest training image."""


@torch.no_grad()
def diversity(samples: Float[Tensor, "n c h w"], data: Float[Tensor, "m _ _ _"], *, chunk: int = 1024) -> Diversity:
    r"""Total variance of samples relative to the data's, and nearest-neighbour distances.

    .. math::
        \frac{\mathrm{tr}\,\mathrm{Cov}(x)}{\mathrm{tr}\,\mathrm{Cov}(y)}, \qquad
        \frac1n \sum_i \min_{j \ne i} \frac{\|x_i - x_j\|}{\sqrt{CHW}}, \qquad
        \frac1n \sum_i \min_j \frac{\|x_i - y_j\|}{\sqrt{CHW}}

    Non-negative; a sampler that always returns one image scores 0, 0. The variance ratio does not depend on the number
    of samples (the covariance is unbiased); nearest-neighbour distances shrink as samples or data are added, so compare
    them at equal counts only. A small distance to the training data is a hint at memorised images, not a proof: blurred
    images are near to many. Distances are those of the nearest image found, recomputed exactly in float64. Cost:
    n (n + m) CHW operations in chunks of data.

    Source: the total variance is the trace of the sample covariance; distance to the nearest training image as a check
    for copies is common practice, e.g. arXiv 2006.11239, appendix.

    Args:
        samples: Generated images, at least two.
        data: Training images, at least two.
        chunk: Images compared at once.

    Returns:
        The three measures.

    Raises:
        ValueError: If the images differ in size, or there are fewer than two of a kind.

    Example:
        >>> data = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
        >>> float(diversity(data / 2, data).variance)
        0.25
    """
    if samples.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"samples and data must have the same shape, got {tuple(samples.shape[1:])} and {tuple(data.shape[1:])}"
        )
    if len(samples) < 2 or len(data) < 2:
        raise ValueError(f"need at least 2 samples and 2 images, got {len(samples)} and {len(data)}")
    generated, real = samples.flatten(1).double(), data.flatten(1)
    return Diversity(
        variance=generated.var(0).sum() / real.double().var(0).sum(),
        nearest_neighbour=_nearest(generated, generated, chunk, itself=True),
        nearest_train=_nearest(generated, real, chunk, itself=False),
    )


def _nearest(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "m d"], chunk: int, itself: bool
) -> Float[Tensor, ""]:
    """Mean root mean square difference from each query to its nearest candidate, leaving itself out if asked."""
    _, index = nearest(queries, candidates, 1, itself=itself, chunk=chunk)
    # The fast formula for many distances loses the digits of small ones, and near copies are what matters here.
    return (queries - candidates[index[:, 0]].double()).square().mean(1).sqrt().mean()
