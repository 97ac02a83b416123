"""The denoising loss."""

import torch
from jaxtyping import Float
from torch import Tensor


def denoising_loss(
    denoised: Float[Tensor, "b *dims"], clean: Float[Tensor, "b *dims"], weight: Float[Tensor, "..."]
) -> Float[Tensor, " b"]:
    r"""Weighted squared error of each example, in float32 or better.

    .. math:: \ell_n = w_n \cdot \tfrac{1}{CHW} \lVert D(x_n, \sigma_n) - x_{0,n} \rVert^2

    Source: Karras et al. 2022, eq. 2, with the mean over pixels in place of the sum.

    Args:
        denoised: The estimates D, shape (b, ...).
        clean: The clean images, same shape.
        weight: One weight per example, shape (b,), or one for all, 0-d.

    Returns:
        One loss per example; average it for training.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> denoising_loss(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), torch.tensor([1.0, 3.0]))
        tensor([1., 3.])
    """
    if weight.ndim > 1 or (weight.ndim == 1 and len(weight) != len(clean)):
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected one per example, ({len(clean)},), or 0-d")
    dtype = torch.promote_types(torch.promote_types(denoised.dtype, clean.dtype), torch.float32)
    error = (denoised.to(dtype) - clean.to(dtype)).square().flatten(1).mean(1)
    return weight.to(error) * error
