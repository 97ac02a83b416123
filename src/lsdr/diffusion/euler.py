"""Euler's method on the probability-flow ODE."""

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import Conditioning
from lsdr.diffusion.sigmas import begin


def euler(
    denoiser: Callable[..., Tensor],
    noise: Float[Tensor, "b *dims"],
    sigmas: Float[Tensor, " levels"],
    conditioning: Conditioning = None,
) -> Float[Tensor, "b *dims"]:
    r"""Sample by Euler steps of dx/dsigma = (x - D(x, sigma)) / sigma; first order, one network call a step.

    .. math:: x' = D + \tfrac{\sigma'}{\sigma}\,(x - D)

    Deterministic and differentiable; wrap it in `torch.no_grad()` to draw samples. The step is a mixture of x and D
    and so does not depend on the frame: it is also DDIM's step (Song et al. 2021, eq. 12, eta = 0) and Euler's step on
    a flow in t. Written as a mixture it loses no digits at large sigma.

    Source: Karras et al. 2022, Algorithm 1 without its second-order correction; k-diffusion, sample_euler.

    Args:
        denoiser: D(x, sigma, conditioning), any callable.
        noise: Unit normal; it is scaled by sigmas[0].
        sigmas: Strictly descending noise levels, ending at 0 (else the state at the last level is returned).
        conditioning: What the denoiser is given, one entry per example: labels, a mapping, or None.

    Returns:
        Clean images, shaped like noise, float32 or better.

    Raises:
        ValueError: If the levels are not strictly descending and >= 0.

    Example:
        >>> import torch
        >>> euler(lambda x, sigma, conditioning: x / (1 + sigma**2), torch.ones(1, 1), torch.tensor([2.0, 1.0, 0.0]))
        tensor([[0.6000]])
    """
    x, sigmas = begin(noise, sigmas)
    for sigma, following in pairwise(sigmas):
        denoised = denoiser(x, sigma, conditioning)
        x = denoised + following / sigma * (x - denoised)
    return x
