"""Intervals from few seeds: the paired bootstrap and Wilson's interval for a rate."""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def paired_bootstrap(
    differences: ArrayLike | Sequence[float],
    statistic: Callable[..., NDArray[np.float64]] = np.median,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    r"""Percentile bootstrap interval of a statistic of paired differences.

    .. math:: [q_{\alpha/2}, q_{1-\alpha/2}] \text{ of } T(d^*_b),\ b = 1..B, \quad d^*_b \text{ drawn from } d_1..d_n
        \text{ with replacement}, \quad \alpha = 1 - \text{level}

    In the unit of the differences; shifts and scales with them. The pairs are resampled, never the two arms apart, so
    what a seed does to both arms cancels. With few pairs the interval of the median can be no wider than
    the data: n pairs of one sign exclude zero by chance with probability :math:`2^{1-n}` (6% at n = 5), so say nothing
    below five.
    O(resamples * n).

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, equation 13.5.

    Args:
        differences: Treatment minus control, one per pair, shape (n,).
        statistic: Takes an array and `axis`, like `numpy.median`.
        level: Confidence level in (0, 1).
        resamples: Bootstrap samples.
        seed: Decides the resampling; the same seed gives the same interval.

    Returns:
        Low and high end.

    Raises:
        ValueError: If there are no differences, one is not finite, or the level is not in (0, 1).

    Example:
        >>> paired_bootstrap([0.1, 0.2, 0.3, 0.4, 0.5])
        (0.1, 0.5)
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected a non-empty list of finite differences, got {differences!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    rng = np.random.default_rng(seed)
    replicates = statistic(values[rng.integers(values.size, size=(resamples, values.size))], axis=-1)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval of a rate; it stays in [0, 1] and is honest at 0 of n.

    .. math:: \frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Args:
        successes: How often it happened.
        trials: Out of how many; at least one.
        level: Confidence level in (0, 1).

    Returns:
        Low and high end.

    Raises:
        ValueError: If there are no trials, or more successes than trials.

    Example:
        >>> wilson_interval(0, 5)
        (0.0, 0.4345)
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"expected 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, scale = successes / trials, 1 + z**2 / trials
    centre = (rate + z**2 / (2 * trials)) / scale
    half = z * (rate * (1 - rate) / trials + z**2 / (4 * trials**2)) ** 0.5 / scale
    # At the ends rounding leaves 1e-17 where zero is meant.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def seeds_needed(differences: ArrayLike | Sequence[float], level: float = 0.95, power: float = 0.8) -> int | None:
    r"""How many pairs it would take to show the observed median difference.

    .. math:: n = \frac{\pi}{2}\left(\frac{(z_{1-\alpha/2} + z_{power})\, s}{m}\right)^2

    with m the observed median, s the differences' standard deviation (n - 1), and pi/2 the price of the median against
    the mean for normal differences. At least five. A rough plan, not a promise: m itself is uncertain. None when it
    cannot be told (fewer than two pairs, or a median of zero).

    Source: Lehr, "Sixteen s-squared over d-squared", Statistics in Medicine 1992, before rounding to 16, paired.

    Args:
        differences: Observed differences, shape (n,).
        level: Confidence level of the interval that shall exclude zero.
        power: Chance of it doing so.

    Returns:
        Number of pairs, or None.

    Example:
        >>> seeds_needed([0.1, -0.1, 0.2, 0.3])
        16
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2 or np.median(values) == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(power)
    ratio = float(z * values.std(ddof=1) / np.median(values))
    return max(5, int(np.ceil(np.pi / 2 * ratio**2)))
