"""Modes captured, high-quality samples, reverse KL: is this mode collapse?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsdr.gan.mixtures import Mixture

RADIUS = 3.0
"""A sample is of high quality within so many standard deviations of the nearest mode's mean."""


@dataclass(frozen=True, eq=False)
class ModeCoverage:
    """How samples are spread over known modes."""

    modes: int
    """Modes with at least one high-quality sample."""
    high_quality: float
    """Share of all samples that belong to a mode."""
    reverse_kl: float | None
    """KL divergence, in nats, of the high-quality samples' distribution over modes from the uniform one; None where no
    sample is of high quality."""
    reverse_kl_all: float | None
    """The same over all samples, with one more bin for those that belong to no mode; None for classes."""
    counts: Int[Tensor, " modes"]
    """High-quality samples of each mode."""
    samples: int
    """How many samples were looked at; values compare at equal numbers only."""


@torch.no_grad()
def mode_coverage(samples: Float[Tensor, "n d"], mixture: Mixture) -> ModeCoverage:
    r"""Count the modes of a mixture that samples capture.

    A sample is of high quality within 3 standard deviations (Euclidean) of the nearest mean; a mode is captured by one
    such sample. With :math:`h_k` the share of mode k among the high-quality samples,

    .. math::
        \mathrm{KL} = \sum_k h_k \ln(K h_k), \qquad
        \mathrm{KL}_{all} = \sum_{k=0}^{K} p_k \ln(p_k / q_k)

    where :math:`p` counts all samples, with bin 0 for those of no mode, and :math:`q` is the mixture's own share of
    each bin (:math:`q_0 = P(\chi_d > 3)`, 1.1 % in the plane). The first is 0 to :math:`\ln K` whatever the quality:
    with a few high-quality samples by chance it says little, and the second, 0 to :math:`-\ln q_0`, says it. Both are
    biased upwards by about (K-1)/2n: read them beside `perfect_sampler`. Values that are not finite belong to no mode.
    Invariant to the order of the samples. Cost: n K d operations.

    Source: VEEGAN (arXiv:1705.07761) section 4.1 and PacGAN (arXiv:1712.04086) section 4.1; reverse KL as in PacGAN's
    tables. The bin for samples of no mode is our addition.

    Args:
        samples: Points, at least one.
        mixture: The modes.

    Returns:
        The measures.

    Raises:
        ValueError: If there is no sample, or it has another number of coordinates than the mixture.

    Example:
        >>> import math
        >>> from lsdr.gan.mixtures import MIXTURES
        >>> grid = MIXTURES["grid"]
        >>> found = mode_coverage(grid.means[:5].repeat(20, 1), grid)  # a generator that knows 5 of 25 modes
        >>> found.modes, found.high_quality, round(found.reverse_kl, 3) == round(math.log(5), 3)
        (5, 1.0, True)
    """
    if len(samples) == 0 or samples.shape[1] != mixture.dimensions:
        raise ValueError(f"need at least one sample with {mixture.dimensions} coordinates, got {tuple(samples.shape)}")
    means = mixture.means.to(samples.device).double()
    # In float64: a mode is hundreds of times narrower than its distance from the origin.
    distance, mode = torch.cdist(samples.double(), means).min(1)
    # A comparison with nan is false, so a sample that is not finite belongs to no mode.
    near = distance <= RADIUS * mixture.std
    counts = mode[near].bincount(minlength=mixture.modes)
    return ModeCoverage(
        modes=int((counts > 0).sum()),
        high_quality=float(counts.sum()) / len(samples),
        reverse_kl=reverse_kl(counts),
        reverse_kl_all=_reverse_kl_all(counts, len(samples), tail_mass(mixture.dimensions)),
        counts=counts,
        samples=len(samples),
    )


def class_coverage(labels: Int[Tensor, " n"], classes: int) -> ModeCoverage:
    r"""Count the classes that samples cover, as for stacked digits.

    A class counts with one sample; the reverse KL is that of the samples' distribution over classes from the uniform
    one. Samples without a class (a label outside 0 ... classes - 1, as for images that are not finite) lower
    `high_quality`, the share of samples that have one, and count nowhere else.

    Source: VEEGAN (arXiv:1705.07761) section 4.2; PacGAN (arXiv:1712.04086) section 4.2.

    Args:
        labels: The class that a classifier sees in each sample, at least one.
        classes: How many there are.

    Returns:
        The measures.

    Raises:
        ValueError: If there is no label or no class.

    Example:
        >>> import math
        >>> found = class_coverage(torch.tensor([7, 7, 7, 7]), classes=10)  # a generator that always draws a seven
        >>> found.modes, found.reverse_kl == math.log(10)
        (1, True)
    """
    if len(labels) == 0 or classes < 1:
        raise ValueError(f"need at least one label and one class, got {len(labels)} and {classes}")
    counts = labels[(labels >= 0) & (labels < classes)].bincount(minlength=classes)
    return ModeCoverage(
        modes=int((counts > 0).sum()),
        high_quality=float(counts.sum()) / len(labels),
        reverse_kl=reverse_kl(counts),
        reverse_kl_all=None,
        counts=counts,
        samples=len(labels),
    )


def reverse_kl(counts: Int[Tensor, " modes"]) -> float | None:
    """KL divergence of counts from the uniform distribution, in nats; None if they are all zero."""
    total = counts.double().sum()
    if total == 0:
        return None
    return float(divergence(counts.double() / total, torch.full_like(total, 1 / len(counts))))


def divergence(share: Float[Tensor, "*batch bins"], reference: Float[Tensor, "*bins"]) -> Float[Tensor, "*batch"]:
    """KL divergence, in nats, of distributions from a reference, one number a bin or one for all bins; 0 ln 0 is 0."""
    # Rounding may leave a distribution that is the reference a hair below zero.
    found: Tensor = torch.special.xlogy(share, share / reference).sum(-1).clamp_min(0)
    return found


def tail_mass(dimensions: int) -> float:
    """Probability that a point of a Gaussian lies more than 3 standard deviations from its mean (Euclidean)."""
    half = torch.tensor([dimensions / 2, RADIUS**2 / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def mixture_shares(modes: int, tail: float) -> Float[Tensor, " bins"]:
    """What a mixture puts into each bin, float64: first that of samples of no mode, then the modes, all alike."""
    return torch.tensor([tail] + [(1 - tail) / modes] * modes, dtype=torch.float64)


def _reverse_kl_all(counts: Tensor, total: int, tail: float) -> float:
    """KL divergence of all samples, with a bin for those of no mode, from what the mixture puts into each bin."""
    off = torch.tensor([total - int(counts.sum())])
    share = torch.cat([off, counts.cpu()]).double() / total
    return float(divergence(share, mixture_shares(len(counts), tail)))
