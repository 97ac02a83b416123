"""Power-law exponent of the tail of a spectrum."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsdr.spectrum import Spectrum

_BLOCK = 1 << 22  # entries of the (candidates, values) table held at once: 32 MB
_STRIDE = 16  # of so many values one is looked at first
_AT_ONCE = 32  # candidates looked at in full together
_ROUNDING = 1e-12  # the same gap, computed in another place of a vector, may differ in its last bits


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """A fitted tail and the range it was fitted on."""

    exponent: Float[Tensor, ""]
    """alpha; differentiable for the chosen range."""
    xmin: Float[Tensor, ""]
    """Smallest sigma squared of the tail; detached."""
    xmax: Float[Tensor, ""]
    """Largest sigma squared; detached."""
    count: int
    """Values in the tail, the two ends included."""
    distance: Float[Tensor, ""]
    """Kolmogorov-Smirnov distance between the tail and the fit, in [0, 1]; detached."""


def power_law_exponent(spectrum: Spectrum) -> PowerLaw:
    r"""Exponent of a power law fitted to the upper tail of the squared singular values.

    .. math::
        p(\lambda) \propto \lambda^{-\alpha}, \quad
        \hat\alpha = 1 + n \Bigl[\textstyle\sum_{\lambda_i \ge x_{\min}} \log(\lambda_i / x_{\min})\Bigr]^{-1}

    Convention: sigma squared (the exponent of sigma itself is 2 alpha - 1). The tail starts at the value whose fit has
    the smallest Kolmogorov-Smirnov distance to the data. Dimensionless, above 1; invariant to scale. Standard error
    (alpha - 1) / sqrt(count); biased upwards by O(1 / count). At most O(K^2), once, on the CPU in float64.

    Read it with care: it always returns a number, of a spectrum without a power law too (look at `distance` and
    `count`); above 8 the tail is no power law; it depends on the aspect ratio of the matrix (arXiv 2506.06280); and it
    correlates with training quality at best, which makes it a poor alarm.

    Source: Clauset, Shalizi & Newman, "Power-law distributions in empirical data", SIAM Review 2009, (3.1) for the
    exponent, (3.9) for the range. Their code compares the distribution functions at the left of each step only; here
    both sides of each step count, as the definition says.

    Args:
        spectrum: K values with at least two different positive ones; zeros are left out.

    Returns:
        Exponent, range and distance, on the device of the values.

    Raises:
        ValueError: If there are not two different positive values, or an eigenvalue is negative.

    Example:
        >>> fit = power_law_exponent(Spectrum.of(torch.arange(1, 101) ** -0.5))  # lambda_k = 1 / k has alpha near 2
        >>> fit.count, round(fit.exponent.item(), 1)
        (100, 2.0)
    """
    relative = spectrum.relative().singular_values()
    positive = relative > 0
    logs = 2 * torch.where(positive, relative, 1).log()[: int(positive.sum())]
    last, distance = _best_tail(logs.detach().double().cpu())
    count = last + 1
    exponent = 1 + count / (logs[:count] - logs[last]).sum()
    squares = spectrum.squares().detach()
    return PowerLaw(exponent, squares[last], squares[0], count, logs.new_tensor(distance))


def _best_tail(logs: Float[Tensor, "k"]) -> tuple[int, float]:
    """Index of the last (smallest) value of the best tail of descending logarithms, and its distance."""
    # A tail ends at the last of equal values, and holds two different ones at least.
    ends = torch.cat([logs[1:] < logs[:-1], torch.ones(1, dtype=torch.bool)]) & (logs < logs[0])
    candidates = ends.nonzero().flatten()
    if not len(candidates):
        raise ValueError(
            f"a power law needs two different positive values at least, got {len(logs)} positive, all equal"
        )
    sums = logs.cumsum(0)
    # The distance at some of the values is a lower bound of the distance: most tails need no more to be ruled out.
    some = torch.arange(0, len(logs), _STRIDE)
    blocks = candidates.split(max(1, _BLOCK // len(some)))
    bounds, order = torch.cat([_distances(logs, sums, block, some) for block in blocks]).sort(stable=True)
    candidates = candidates[order]
    every = torch.arange(len(logs))
    size = max(1, min(_AT_ONCE, _BLOCK // len(logs)))
    best, smallest = 0, float("inf")
    for start in range(0, len(candidates), size):
        if float(bounds[start]) > smallest + _ROUNDING:
            break
        block = candidates[start : start + size]
        distances = _distances(logs, sums, block, every)
        index = int(distances.argmin())
        if (float(distances[index]), int(block[index])) < (smallest, best):
            best, smallest = int(block[index]), float(distances[index])
    return best, smallest


def _distances(
    logs: Float[Tensor, "k"], sums: Float[Tensor, "k"], tails: Int[Tensor, "c"], points: Int[Tensor, "p"]
) -> Float[Tensor, "c"]:
    """Largest gap, at these points, between each tail (given by its last index) and the power law fitted to it."""
    count = (tails + 1)[:, None].double()
    rise = logs[points][None, :] - logs[tails][:, None]
    slope = count / (sums[tails][:, None] - count * logs[tails][:, None])
    fitted = -torch.expm1(-slope * rise)
    # In ascending order the i-th largest value is the (last - i)-th: the step goes from below/count up to +1/count.
    below = (tails[:, None] - points[None, :]).double()
    gaps = torch.maximum((fitted - below / count).abs(), ((below + 1) / count - fitted).abs())
    return torch.where(below >= 0, gaps, 0).amax(1)
