"""What a perfect sampler would score: measures of finitely many samples are not at their ideal values."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.gan.measures.mode_coverage import divergence, mixture_shares, tail_mass
from lsdr.gan.mixtures import Mixture


@dataclass(frozen=True)
class Estimate:
    """A mean and a standard deviation over repetitions."""

    mean: float
    sd: float


@dataclass(frozen=True)
class PerfectSampler:
    """What draws from the data themselves score, at a number of samples."""

    modes: Estimate
    high_quality: Estimate | None
    """None for classes, to which every sample belongs."""
    reverse_kl: Estimate
    reverse_kl_all: Estimate | None
    """None for classes."""


def perfect_sampler(
    probabilities: Float[Tensor, " modes"], samples: int, *, tail: float | None = None, trials: int = 500, seed: int = 0
) -> PerfectSampler:
    r"""Modes captured, high quality and reverse KL of samples drawn from the data.

    Counts of n samples over K modes are multinomial; the measures are computed from `trials` such draws. For K equally
    likely modes the mean reverse KL is about (K-1)/2n: .0192 for 26,000 samples of 1000 classes, however good the
    sampler. Where modes are not equally likely, the reverse KL from the uniform distribution that the papers use stays
    above 0 for any n: .0235 for three digits with MNIST's frequencies. A value below these is luck, or too few modes'
    worth of samples; it is not a better sampler. Deterministic for a seed. Cost: `trials` K draws.

    Args:
        probabilities: How likely each mode is in the data; summing to 1.
        samples: How many samples the measures are made of.
        tail: Probability that a draw counts for no mode (`tail_mass` of a Gaussian); None for classes.
        trials: Repetitions.
        seed: Decides them.

    Returns:
        Mean and standard deviation of each measure.

    Raises:
        ValueError: If there is no sample, or the probabilities are none.

    Example:
        >>> perfect = perfect_sampler(torch.full((8,), 1 / 8), 2500, tail=0.0111)
        >>> perfect.modes.mean, round(perfect.reverse_kl.mean, 4), round(perfect.high_quality.mean, 3)
        (8.0, 0.0014, 0.989)
    """
    share = probabilities.double().cpu().numpy()
    if samples < 1 or trials < 2 or (share < 0).any() or not np.isclose(share.sum(), 1):
        raise ValueError(
            f"need samples and probabilities that sum to 1, got {samples} samples, {trials} trials and a sum of "
            f"{share.sum():g}"
        )
    off = tail or 0.0
    bins = np.concatenate([[off], share / share.sum() * (1 - off)])
    counts = torch.from_numpy(np.random.default_rng(seed).multinomial(samples, bins, size=trials)).double()
    kept = counts[:, 1:]
    total = kept.sum(1)
    some = total > 0  # the reverse KL of no sample is not defined
    uniform = torch.tensor(1 / len(share), dtype=torch.float64)
    return PerfectSampler(
        modes=_estimate((kept > 0).sum(1)),
        high_quality=None if tail is None else _estimate(total / samples),
        reverse_kl=_estimate(divergence(kept[some] / total[some, None], uniform)),
        reverse_kl_all=None
        if tail is None
        else _estimate(divergence(counts / samples, mixture_shares(len(share), tail))),
    )


def perfect_mixture_sampler(mixture: Mixture, samples: int) -> PerfectSampler:
    """What draws from a mixture score.

    Example:
        >>> from lsdr.gan.mixtures import MIXTURES
        >>> round(perfect_mixture_sampler(MIXTURES["grid"], 2500).reverse_kl.mean, 4)
        0.0049
    """
    equal = torch.full((mixture.modes,), 1 / mixture.modes, dtype=torch.float64)
    return perfect_sampler(equal, samples, tail=tail_mass(mixture.dimensions))


def _estimate(values: Tensor) -> Estimate:
    return Estimate(float(values.double().mean()), float(values.double().std()))
