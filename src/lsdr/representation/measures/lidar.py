"""LiDAR: the rank of the linear discriminants that tell examples apart, from the moments of two views."""

import math

import torch

from lsdr.moments import Moments
from lsdr.representation.measures.two_views import view_components


@torch.no_grad()
def lidar(moments: Moments, views: int | None = None, delta: float = 1e-4, epsilon: float = 1e-7) -> float:
    r"""Effective rank of the between-example covariance, measured in units of the within-example one.

    .. math::
        \Sigma = \Sigma_w^{-1/2} \, \Sigma_b \, \Sigma_w^{-1/2}, \qquad
        \exp\bigl(-\textstyle\sum_k p_k \log p_k\bigr), \quad p_k = \lambda_k(\Sigma) / \sum_j \lambda_j + \epsilon

    In [1, d] but for epsilon. The paper takes q views of each example, the mean of each for the "class" and their
    scatter about it; two views say as much, by components of variance: Sigma_b = C_zz', Sigma_w = C - C_zz', so that
    the eigenvalues are rho / (1 - rho) of the canonical correlations rho. That is the limit of many views. With q
    views the paper's formula has (1 - 1/q) Sigma_w in place of Sigma_w and, since the mean of q views still scatters,
    Sigma_b + Sigma_w / q for Sigma_b: `views` gives that reading. Invariant to scale, shift and rotation. O(d^3).

    Source: Thilak et al., arXiv 2312.04000, equations (3) to (6). Deviates in adding delta times the mean variance of
    a dimension to Sigma_w, where the paper adds delta itself: there the rank depends on the scale of the codes.
    Negative eigenvalues of the estimated Sigma_b count as 0.

    Args:
        moments: Of (codes of view a, codes of view b); many more examples than dimensions.
        views: Read it as the paper's formula with so many views would; None: in the limit of many.
        delta: Floor of the variance within, as a share of the mean variance of a dimension.
        epsilon: Added to every p.

    Returns:
        The effective rank; nan of codes that do not vary, are not finite, or of which views have nothing in common.

    Raises:
        ValueError: If there is one view only, fewer than two examples, or `views` is below 2.
    """
    if views is not None and views < 2:
        raise ValueError(f"an example must have two views at least, got views={views}")
    found = view_components(moments)
    if not found.varies:
        return math.nan
    between, within = found.between, found.within
    scale = (between + within).trace() / len(within)
    if views is not None:
        between, within = between + within / views, within * (1 - 1 / views)
    floor = delta * scale * torch.eye(len(within), dtype=within.dtype, device=within.device)
    values, axes = torch.linalg.eigh(within + floor)
    whiten = axes / values.clamp_min(torch.finfo(values.dtype).tiny).sqrt()
    ratios = torch.linalg.eigvalsh(whiten.T @ between @ whiten).clamp_min(0)
    if not bool(ratios[-1] > 0):
        return math.nan
    shares = ratios / ratios.sum() + epsilon
    return float((-(shares * shares.log()).sum()).exp())
