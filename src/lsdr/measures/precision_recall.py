"""Precision, recall, density and coverage of samples, from nearest neighbours."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.measures.nearest import nearest, squared_distances

# Strict inequality that rounding cannot undo, for data on a lattice.
_OPEN = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """How well samples lie within the data, and how well they cover it; each is 0 to 1 but density."""

    precision: Float[Tensor, ""]
    """Share of samples that lie in the neighbourhood of an example."""
    recall: Float[Tensor, ""]
    """Share of examples that lie in the neighbourhood of a sample."""
    density: Float[Tensor, ""]
    """Mean number of examples' neighbourhoods that hold a sample, over k; at least 0, about 1 for equal
    distributions."""
    coverage: Float[Tensor, ""]
    """Share of examples whose neighbourhood holds a sample."""


@torch.no_grad()
def precision_recall(
    samples: Float[Tensor, "n d"], data: Float[Tensor, "m _"], *, k: int = 5, chunk: int = 1024
) -> PrecisionRecall:
    r"""Precision, recall, density and coverage of samples against data.

    With :math:`B_k(y; Y)` the open ball around y that reaches to its k-th nearest neighbour in Y, itself left out,

    .. math::
        P = \frac1n \sum_i \mathbb 1[x_i \in \textstyle\bigcup_j B_k(y_j; Y)], \quad
        R = \frac1m \sum_j \mathbb 1[y_j \in \bigcup_i B_k(x_i; X)], \quad
        D = \frac1{kn} \sum_{ij} \mathbb 1[x_i \in B_k(y_j; Y)], \quad
        C = \frac1m \sum_j \mathbb 1[\exists i: x_i \in B_k(y_j; Y)]

    They are not 1 for equal distributions. The mean density is then 1 and the mean coverage
    :math:`1 - \prod_{i=1}^{k} (m - i)/(m + n - i)`, in any space; precision and recall fall with the dimension: two
    sets of 10,000 from N(0, I) in 1000 dimensions score .46 to .48 and .46 to .50 (density .89 to 1.04, coverage .956
    to .973; five draws). Read them beside what fresh draws of the data score, and compare at equal counts only. One
    outlier in the data raises precision, one among the samples raises recall; density and coverage were made against
    that. Invariant to shifts, rotations and a common scale.

    Degenerate inputs: samples that are all the same have recall 0 (their balls are empty). Samples that are not finite
    lie in no ball and have none, but count in n; if no more than k are finite, recall is 0. A point at the distance of
    the k-th neighbour, up to rounding, is outside.

    Source: precision and recall, Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. (1)-(3); density and coverage, Naeem
    et al. 2020, arXiv:2002.09797, eq. (3)-(4), whose code the strict inequality is from (it prints .477,
    .471, 1.056, .974 for one draw of the normal sets above). Computed in float64. Cost: (n + m)^2 d operations, in
    blocks of `chunk` by `chunk` distances.

    Args:
        samples: Points or features of images, more than k.
        data: The same of real examples, more than k, finite.
        k: Which neighbour bounds a neighbourhood.
        chunk: Points compared at once with as many others.

    Returns:
        The four measures.

    Raises:
        ValueError: If there are not more than k samples or examples, their sizes differ, or the data are not finite.

    Example:
        >>> points = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> found = precision_recall(points[:200] * 0.1, points[200:])  # all near the centre
        >>> float(found.precision), bool(found.coverage < 0.2)
        (1.0, True)
    """
    if samples.shape[1] != data.shape[1]:
        raise ValueError(f"samples and data must have equal sizes, got {samples.shape[1]} and {data.shape[1]}")
    if k < 1 or len(samples) <= k or len(data) <= k:
        raise ValueError(f"need k of at least 1 and more than k={k} of each, got {len(samples)} and {len(data)}")
    if not bool(data.isfinite().all()):
        raise ValueError("the data hold values that are not finite; leave those examples out")
    count = len(samples)
    # Distances do not depend on the origin, but their rounding does.
    centre = data.double().mean(0)
    real = data.double() - centre
    fake = samples[samples.isfinite().all(1)].double() - centre
    real_radius = _radii(real, k, chunk)
    fake_radius = _radii(fake, k, chunk) if len(fake) > k else fake.new_zeros(len(fake))
    inside = fake.new_zeros(len(fake))
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = torch.zeros_like(recalled)
    for rows in torch.arange(len(fake), device=real.device).split(chunk):
        for columns in torch.arange(len(real), device=real.device).split(chunk):
            distance = squared_distances(fake[rows], real[columns])
            within = distance < real_radius[columns]
            inside[rows] += within.sum(1)
            covered[columns] |= within.any(0)
            recalled[columns] |= (distance < fake_radius[rows, None]).any(0)
    return PrecisionRecall(
        precision=(inside > 0).double().sum() / count,
        recall=recalled.double().mean(),
        density=inside.sum() / (k * count),
        coverage=covered.double().mean(),
    )


def _radii(points: Float[Tensor, "n d"], k: int, chunk: int) -> Float[Tensor, " n"]:
    """Squared radius of the open ball around each point that reaches to its k-th nearest other one."""
    return nearest(points, points, k, itself=True, chunk=chunk)[0][:, -1].square() * _OPEN
