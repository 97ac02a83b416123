"""What two views of an example share, and what they do not: everything measured from two-view moments starts here."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.moments import Moments

# Variance below this share of the mean square of the codes is what rounding makes of a constant.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class ViewComponents:
    """Components of the variance of codes: between examples, and within the views of an example."""

    between: Float[Tensor, "d d"]
    """Covariance of what views of an example have in common; unbiased, so it may have small negative eigenvalues."""
    within: Float[Tensor, "d d"]
    """Covariance of the views about it, unbiased."""
    square: float
    """Mean square of the codes, about the origin."""
    count: int
    """Examples."""

    @property
    def varies(self) -> bool:
        """Whether the codes vary by more than rounding."""
        total = float(self.between.trace() + self.within.trace())
        return math.isfinite(total) and total > _ROUNDING * self.square


@torch.no_grad()
def view_components(moments: Moments) -> ViewComponents:
    r"""Variance components of codes z, z' of two views, drawn alike, of each of n examples.

    .. math::
        \hat\Sigma_w = \tfrac{1}{2n} \sum (z - z')(z - z')^\top, \qquad
        \hat\Sigma_b = \mathrm{Cov}_{n-1}\bigl(\tfrac{z + z'}{2}\bigr) - \tfrac12 \hat\Sigma_w

    the estimators of a one-way analysis of variance. For exchangeable views these estimate C_zz' and C - C_zz'. A
    difference of the two means counts as variance within: one view that moves all codes alike is not invariance.

    Args:
        moments: Of (codes of view a, codes of view b).

    Raises:
        ValueError: If there is one view only, or fewer than two examples.

    Example:
        >>> views = torch.tensor([[0.0], [2.0], [4.0]])
        >>> found = view_components(Moments.of(views, views))
        >>> found.between.item(), found.within.item()
        (4.0, 0.0)
    """
    n = int(moments.count)
    if n < 2:
        raise ValueError(f"variance between examples needs two of them at least, got {n}")
    a, b, cross = (
        torch.as_tensor(part).detach().double()
        for part in (moments.covariance(), moments.y.covariance(), moments.cross_covariance())
    )
    means = [torch.as_tensor(each).detach().double().flatten() for each in (moments.mean, moments.y.mean)]
    apart = means[0] - means[1]
    both = cross + cross.T
    within = (a + b - both + torch.outer(apart, apart)) / 2
    between = (a + b + both) / 4 * (n / (n - 1)) - within / 2
    square = float(a.trace() + b.trace() + means[0].square().sum() + means[1].square().sum()) / 2
    return ViewComponents(between, within, square, n)


@torch.no_grad()
def icc(components: ViewComponents) -> float:
    r"""Intraclass correlation: the share of the codes' variance that views of an example have in common.

    .. math:: \mathrm{ICC} = \frac{\mathrm{tr}\,\Sigma_b}{\mathrm{tr}\,\Sigma_b + \mathrm{tr}\,\Sigma_w}

    1 for invariant codes, 0 for unrelated ones (below by chance); a constant code has none, nan: unlike a cosine it
    cannot be had by collapse. Invariant to shifts, rotations and scale. Of one dimension it is ICC(1,1) of Shrout &
    Fleiss, "Intraclass correlations", Psychological Bulletin 1979.

    Args:
        components: From `view_components`.
    """
    if not components.varies:
        return math.nan
    between, within = float(components.between.trace()), float(components.within.trace())
    return between / (between + within)


@torch.no_grad()
def icc_by_dimension(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Intraclass correlation of each dimension by itself; of ordered codes, their canonical correlations.

    Args:
        a: Codes of one view of n >= 2 examples.
        b: Codes of the other.

    Returns:
        In float64; nan of a dimension that does not vary, or is not finite.
    """
    between, within, square = _by_dimension(a, b)
    total = between + within
    return torch.where(total > _ROUNDING * square, between / total, math.nan)


@torch.no_grad()
def icc_of_codes(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """`icc` of codes of any width, O(n d); nan of constant codes, of those that are not finite, and of one example.

    Args:
        a: Codes of one view of n examples.
        b: Codes of the other.

    Example:
        >>> icc_of_codes(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
        0.7777778
    """
    if len(a) < 2:
        return math.nan
    between, within, square = (float(part.sum()) for part in _by_dimension(a, b))
    return between / (between + within) if between + within > _ROUNDING * square else math.nan


def _by_dimension(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonals of the components of variance, and mean squares."""
    a, b = a.double(), b.double()
    within = (a - b).square().mean(0) / 2
    between = ((a + b) / 2).var(0) - within / 2
    return between, within, (a.square() + b.square()).mean(0) / 2
