"""alpha-ReQ: how fast the eigenvalues of codes decay."""

from dataclasses import dataclass

import torch

from lsdr.spectrum import Spectrum


@dataclass(frozen=True)
class Decay:
    """A power law fitted to eigenvalues by their rank."""

    exponent: float
    """alpha; nan if fewer than three eigenvalues could be fitted."""
    r_squared: float
    """Share of the (weighted) variance of the logarithms that the fit explains."""
    first: int
    """Rank of the first eigenvalue fitted, from 1."""
    last: int
    """Rank of the last one."""


@torch.no_grad()
def alpha_req(spectrum: Spectrum, first: int = 1, last: int | None = None) -> Decay:
    r"""Exponent of a power law fitted to the eigenvalues of a covariance by their rank.

    .. math:: \log \lambda_i = c - \alpha \log i, \quad i = \text{first}, \dots, \text{last}

    by least squares with weights 1 / i, so that each octave of ranks counts the same. Invariant to scale. alpha of
    about 1 is said to go with good codes; it means little where codes are rank-deficient, where `r_squared` is low, or
    over a few ranks. Not `lsdr.statistics.power_law_exponent`, which fits the density of the values: a density with
    exponent a is a decay by rank with alpha = 1 / (a - 1).

    Source: Agrawal et al., "alpha-ReQ", NeurIPS 2022; the weights as in Stringer et al., Nature 2019, whose ranks are
    11 to 500: pass those for codes that wide. Eigenvalues that are rounding, below 1e-10 of the largest, are left out.

    Args:
        spectrum: Eigenvalues of a covariance, or singular values of centred codes.
        first: Rank to begin with.
        last: Rank to end with; None: the last that is not rounding.

    Raises:
        ValueError: If `first` is below 1.

    Example:
        >>> fit = alpha_req(Spectrum.of(torch.arange(1, 101) ** -1.5, kind="eigenvalues"))
        >>> fit.exponent, fit.last
        (1.5, 100)
    """
    if first < 1:
        raise ValueError(f"ranks are counted from 1, got first={first}")
    values = spectrum.squares().double().cpu()
    known = int((values > 1e-10 * values[0]).sum())
    end = known if last is None else min(last, known)
    if end - first < 2:
        return Decay(float("nan"), float("nan"), first, end)
    ranks = torch.arange(first, end + 1, dtype=torch.float64)
    weights = 1 / ranks
    x, y = ranks.log(), values[first - 1 : end].log()
    x, y = x - (weights * x).sum() / weights.sum(), y - (weights * y).sum() / weights.sum()
    covariance, left, right = (weights * x * y).sum(), (weights * x * x).sum(), (weights * y * y).sum()
    slope = covariance / left
    explained = covariance.square() / (left * right) if bool(right > 0) else torch.tensor(float("nan"))
    return Decay(-float(slope), float(explained), first, end)
