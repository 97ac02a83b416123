"""DDIM, deterministic, in the variance-preserving frame it was published in."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import Conditioning
from lsdr.diffusion.sigmas import begin


def ddim(
    denoiser: Callable[..., Tensor],
    noise: Float[Tensor, "b *dims"],
    sigmas: Float[Tensor, " levels"],
    conditioning: Conditioning = None,
) -> Float[Tensor, "b *dims"]:
    r"""Sample by DDIM steps with eta = 0; first order, one network call a step.

    .. math::
        \bar\alpha = \frac{1}{1+\sigma^2},\quad x_t = \sqrt{\bar\alpha}\,x,\quad
        \hat\epsilon = \frac{x_t - \sqrt{\bar\alpha}\,D}{\sqrt{1-\bar\alpha}},\quad
        x_{t'} = \sqrt{\bar\alpha'}\,D + \sqrt{1-\bar\alpha'}\,\hat\epsilon

    Algebraically the same as `euler` on the same levels, and the same as diffusers' DDIMScheduler on the timesteps of
    `ddpm_sigmas` without its clipping; kept because it is what the literature means by DDIM. Deviation: like our other
    samplers it starts at sigmas[0] * noise, where diffusers starts with x_T = noise; that is larger by
    sqrt(1 + 1 / sigma^2), 2e-5 for DDPM's schedule.

    Source: Song, Meng & Ermon 2021, "Denoising diffusion implicit models", eq. 12.

    Args:
        denoiser: D(x, sigma, conditioning), any callable; x is in the variance-exploding frame.
        noise: Unit normal; it is scaled by sigmas[0].
        sigmas: Strictly descending noise levels, ending at 0 (else the state at the last level is returned, in the
            variance-exploding frame).
        conditioning: What the denoiser is given, one entry per example: labels, a mapping, or None.

    Returns:
        Clean images, shaped like noise, float32 or better.

    Raises:
        ValueError: If the levels are not strictly descending and >= 0.

    Example:
        >>> import torch
        >>> ddim(lambda x, sigma, conditioning: x / (1 + sigma**2), torch.ones(1, 1), torch.tensor([2.0, 1.0, 0.0]))
        tensor([[0.6000]])
    """
    x, sigmas = begin(noise, sigmas)
    scale = (1 + sigmas.square()).sqrt()
    x_t = x / scale[0]
    for i in range(len(sigmas) - 1):
        signal, spread = 1 / scale[i], sigmas[i] / scale[i]  # sqrt(abar), sqrt(1 - abar)
        denoised = denoiser(x_t * scale[i], sigmas[i], conditioning)
        epsilon = (x_t - signal * denoised) / spread
        x_t = denoised / scale[i + 1] + sigmas[i + 1] / scale[i + 1] * epsilon
    return x_t * scale[-1]
