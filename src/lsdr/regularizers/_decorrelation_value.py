"""One layer's decorrelation penalty, from its features or from merged moments of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.moments import Moments
from lsdr.regularizers._squared_covariance import (
    Form,
    centre,
    centred_product,
    channel_rows,
    fourth_moments,
    inner_product,
    inner_product_dual,
    normalise,
    scale_to_correlation,
    unbiased,
    variance_hinge,
)

Estimator = Literal["plug_in", "split_half", "u_statistic"]
Positions = Literal["samples", "inner_product"]


@dataclass(frozen=True)
class Recipe:
    """What to compute; see `SpectralDecorrelation` for the words."""

    form: Form
    estimator: Estimator
    positions: Positions
    variance_floor: float | int

    @property
    def over(self) -> tuple[int, ...]:
        """The dimensions of (samples, channels, positions) that means are taken over."""
        return (0, 2) if self.positions == "samples" else (0,)

    @property
    def least(self) -> int:
        """How many samples each mean needs."""
        return {"plug_in": 1, "split_half": 2, "u_statistic": 4}[self.estimator]

    def divisor(self, count: int, positions: int) -> int:
        """What turns centred cross-products into a covariance, for correlations into one per position."""
        if count < self.least:
            raise ValueError(
                f"estimator={self.estimator!r} needs {self.least} samples"
                f"{' in each half' if self.estimator == 'split_half' else ''}, got {count}; "
                "use larger batches or estimator='plug_in'"
            )
        per_position = self.form == "correlation" and self.positions == "inner_product"
        return (count - (self.estimator != "plug_in")) * (positions if per_position else 1)

    def halves(self, x: Float[Tensor, "n d p"]) -> tuple[Float[Tensor, "_ d p"], ...]:
        """The samples of even and of odd number, or all in one where no halves are wanted."""
        return (x[0::2], x[1::2]) if self.estimator == "split_half" else (x,)


def value_of_features(x: Float[Tensor, "n d p"], recipe: Recipe) -> Float[Tensor, ""]:
    """The penalty where all samples are at hand: one pass through the covariance, or the Gram matrix if smaller."""
    halves = recipe.halves(x)
    counts = [half.shape[0] * (half.shape[2] if recipe.positions == "samples" else 1) for half in halves]
    divisors = [recipe.divisor(count, x.shape[2]) for count in counts]
    diagonal = recipe.form == "as_written"
    if all(half.shape[0] * half.shape[2] < x.shape[1] for half in halves):
        # C = A A' with A = X / sqrt(N), and |<A1 A1', A2 A2'>| = ||A1' A2||^2 costs O(N^2 D), not O(N D^2).
        roots = [channel_rows(centre(half, recipe.over)) for half in halves]
        roots = [root / divisor**0.5 for root, divisor in zip(roots, divisors, strict=True)]
        variances = [root.square().sum(1) for root in roots]
        if recipe.form == "correlation":
            roots = [root * scale_to_correlation(v)[:, None] for root, v in zip(roots, variances, strict=True)]
        squared = inner_product_dual(roots[0], roots[-1], diagonal)
    else:
        products = [centred_product(half, recipe.over) for half in halves]
        covariances = [product / divisor for product, divisor in zip(products, divisors, strict=True)]
        squared, variances = _squared(covariances, recipe)
    if recipe.estimator == "u_statistic":
        fourth = fourth_moments([channel_rows(centre(x, recipe.over))], variances[0], recipe.form)
        squared = unbiased(squared, variances[0], fourth, counts[0], recipe.form)
    return _finish(squared, variances, recipe)


def moments_of_features(x: Float[Tensor, "n d p"], recipe: Recipe) -> tuple[Moments, ...]:
    """The mergeable form of a forward's features, one state a half."""
    if recipe.positions == "samples":
        return tuple(Moments.of(channel_rows(half).T) for half in recipe.halves(x))
    return tuple(Moments.of(half.transpose(1, 2)) for half in recipe.halves(x))


def value_of_moments(
    totals: Sequence[Moments], features: Sequence[Float[Tensor, "_ d _"]], recipe: Recipe
) -> Float[Tensor, ""]:
    """The penalty from moments over all forwards and ranks.

    Args:
        totals: One state a half.
        features: This rank's features, for what moments of second order do not tell.
        recipe: What to compute.
    """
    covariances = []
    for total in totals:
        positions = total.mean.shape[0] if total.mean.ndim == 2 else 1
        divisor = recipe.divisor(total.count, positions)
        covariances.append(total.covariance() * (total.count / divisor))
    squared, variances = _squared(covariances, recipe)
    if recipe.estimator == "u_statistic":
        (total,) = totals
        centred = [channel_rows(x) - total.mean[:, None] for x in features]
        # A rank's sums as one row of moments: count times mean is their sum over ranks, with its gradient.
        sums = Moments.of(fourth_moments(centred, variances[0], recipe.form)[None]).all_reduce()
        squared = unbiased(squared, variances[0], sums.count * sums.mean, total.count, recipe.form)
    return _finish(squared, variances, recipe)


def _squared(
    covariances: Sequence[Float[Tensor, "d d"]], recipe: Recipe
) -> tuple[Float[Tensor, ""], list[Float[Tensor, " d"]]]:
    """The sum over pairs of channels in the form asked for, and each half's variances."""
    variances = [covariance.diagonal() for covariance in covariances]
    if recipe.form == "correlation":
        scales = [scale_to_correlation(variance) for variance in variances]
        covariances = [c * scale * scale[:, None] for c, scale in zip(covariances, scales, strict=True)]
    return inner_product(covariances[0], covariances[-1], recipe.form == "as_written"), variances


def _finish(squared: Float[Tensor, ""], variances: Sequence[Float[Tensor, " d"]], recipe: Recipe) -> Float[Tensor, ""]:
    value = normalise(squared, recipe.form, variances[0].numel())
    if recipe.form == "correlation":
        value = value + torch.stack([variance_hinge(variance, recipe.variance_floor) for variance in variances]).mean()
    return value
