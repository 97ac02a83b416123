"""Heun's method on the probability-flow ODE: EDM's deterministic sampler."""

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import Conditioning
from lsdr.diffusion.sigmas import begin


def heun(
    denoiser: Callable[..., Tensor],
    noise: Float[Tensor, "b *dims"],
    sigmas: Float[Tensor, " levels"],
    conditioning: Conditioning = None,
) -> Float[Tensor, "b *dims"]:
    r"""Sample by Heun steps of dx/dsigma = (x - D(x, sigma)) / sigma; second order, two network calls a step.

    .. math:: d = \frac{x - D(x,\sigma)}{\sigma},\quad \tilde x = x + (\sigma'-\sigma)\,d,\quad
        x' = x + (\sigma'-\sigma)\,\tfrac12\Bigl(d + \frac{\tilde x - D(\tilde x,\sigma')}{\sigma'}\Bigr)

    The last step, to sigma' = 0, is Euler's: n steps cost 2n - 1 calls. Deterministic and differentiable; wrap it in
    `torch.no_grad()` to draw samples.

    Source: Karras et al. 2022, Algorithm 1, with sigma(t) = t and s(t) = 1.

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
        >>> heun(lambda x, sigma, conditioning: x / (1 + sigma**2), torch.ones(1, 1), torch.tensor([2.0, 1.0, 0.0]))
        tensor([[0.6500]])
    """
    x, sigmas = begin(noise, sigmas)
    ends_clean = float(sigmas[-1]) == 0
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma, conditioning)
        slope: Tensor = (x - denoised) / sigma  # line 4
        euler: Tensor = denoised + following / sigma * (x - denoised)  # line 5, as a mixture: exact at following = 0
        if ends_clean and i == len(sigmas) - 2:
            return euler
        slope_after = (euler - denoiser(euler, following, conditioning)) / following  # line 7
        x = x + (following - sigma) * 0.5 * (slope + slope_after)  # line 8
    return x
