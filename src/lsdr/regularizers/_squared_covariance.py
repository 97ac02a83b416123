"""The squared covariance of features in its three forms, through the covariance or through the Gram matrix."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

Form = Literal["as_written", "covariance", "correlation"]

# Added to variances before they divide: a channel whose standard deviation is far below 1e-3 counts as uncorrelated,
# and the gradient of a nearly constant channel stays finite. VICReg adds 1e-4, to embeddings held near variance 1.
EPSILON = 1e-6


class _CentredProduct(torch.autograd.Function):
    """Centred cross-product of channels, with one matrix product backward where autograd would take two.

    With X centred and P = X X', dL/dX = (G + G') X: its rows sum to zero as those of X do, so that centring needs no
    backward of its own. The input is saved, not what is made of it: no memory beyond what the model holds anyway, and
    a second derivative is right as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, over: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.over = over
        rows = channel_rows(centre(x, over))
        return rows @ rows.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (gradient,) = gradients
        symmetric = gradient + gradient.T
        centred = centre(x, ctx.over)
        if x.stride(1) == 1:  # channels last: give the gradient the layout of the feature it is added to
            return (centred.transpose(1, 2) @ symmetric).transpose(1, 2), None
        return symmetric @ centred, None


def centre(x: Float[Tensor, "n d p"], over: tuple[int, ...]) -> Float[Tensor, "n d p"]:
    """Subtract the mean over samples, or over samples and positions."""
    return x - x.mean(over, keepdim=True)


def channel_rows(x: Float[Tensor, "n d p"]) -> Float[Tensor, "d n*p"]:
    """A row a channel. Copies whole rows of positions, or nothing where channels come last: cheap beside a product."""
    return x.transpose(0, 1).flatten(1)


def centred_product(x: Float[Tensor, "n d p"], over: tuple[int, ...]) -> Float[Tensor, "d d"]:
    r"""Compute :math:`\sum_{n,p} (x_{nip} - \bar x_i)(x_{njp} - \bar x_j)`; differentiable twice; O(D^2 N P)."""
    product: Tensor = _CentredProduct.apply(x, over)
    return product


def inner_product(first: Float[Tensor, "d d"], second: Float[Tensor, "d d"], diagonal: bool) -> Float[Tensor, ""]:
    """Sum of products of two symmetric matrices' entries, with the diagonal or without."""
    product = first * second
    if diagonal:
        return product.sum()
    # Not the sum less the diagonal's: the rest may be smaller than the rounding of the diagonal.
    return (product - torch.diag(product.diagonal())).sum()


def inner_product_dual(first: Float[Tensor, "d m"], second: Float[Tensor, "d n"], diagonal: bool) -> Float[Tensor, ""]:
    r"""The same of :math:`A A'` and :math:`B B'`, as :math:`\|A'B\|_F^2`: O(D M N), for fewer samples than channels."""
    total = (first.T @ second).square().sum()
    if diagonal:
        return total
    return total - (first.square().sum(1) * second.square().sum(1)).sum()


def scale_to_correlation(variance: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """What to multiply channels with, to make their covariance a correlation."""
    return torch.rsqrt(variance + EPSILON)


def normalise(squared: Float[Tensor, ""], form: Form, channels: int) -> Float[Tensor, ""]:
    """Divide a sum over pairs of channels as its form wants it."""
    if form == "as_written":
        return squared
    if form == "covariance":
        return squared / channels
    return squared / max(channels * (channels - 1), 1)


def variance_hinge(variance: Float[Tensor, " d"], floor: float | int) -> Float[Tensor, ""]:
    """Mean shortfall of the standard deviations below a floor (VICReg, eq. 1)."""
    return torch.relu(floor - (variance + EPSILON).sqrt()).mean()


def fourth_moments(
    centred: Sequence[Float[Tensor, "d _"]], variance: Float[Tensor, " d"], form: Form
) -> Float[Tensor, "2"]:
    r"""Sum over samples of :math:`\|x\|^4` and of :math:`\sum_i x_i^4`, the features standardised for correlations."""
    if form == "correlation":
        centred = [x * scale_to_correlation(variance)[:, None] for x in centred]
    squares = [x.square() for x in centred]
    whole = torch.stack([square.sum(0).square().sum() for square in squares]).sum()
    single = torch.stack([square.square().sum() for square in squares]).sum()
    return torch.stack([whole, single])


def unbiased(
    squared: Float[Tensor, ""],
    variance: Float[Tensor, " d"],
    fourth: Float[Tensor, "2"],
    count: int,
    form: Form,
) -> Float[Tensor, ""]:
    r"""The U-statistic of the squared covariance, from sums alone.

    .. math:: \frac{N-1}{N(N-2)(N-3)} \bigl[ (N-1)(N-2) \operatorname{tr} S^2 + (\operatorname{tr} S)^2 - N Q \bigr],
        \quad Q = \frac{1}{N-1} \sum_n \|x_n - \bar x\|^4

    It equals the mean over all ordered 4-tuples of distinct samples of
    :math:`((x_a - x_b)'(x_c - x_d))^2 / 4`. Without the diagonal: the same less the formula of every single channel.

    Source: Himeno & Yamada 2014, "Estimations for some functions of covariance matrix in high dimension under
    non-normality", J. Multivariate Analysis 130.
    """
    n = count
    if form == "correlation":
        variance = variance / (variance + EPSILON)
    trace = variance.sum().square()
    quartic = fourth[0]
    if form != "as_written":
        trace = trace - variance.square().sum()
        quartic = quartic - fourth[1]
    factor = (n - 1) / (n * (n - 2) * (n - 3))
    return factor * ((n - 1) * (n - 2) * squared + trace - n / (n - 1) * quartic)
