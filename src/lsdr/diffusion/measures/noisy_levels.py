"""Images under noise at several levels, as one batch."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import per_example
from lsdr.probes.conditioning import Given, check_conditioning, each_tensor


class NoisyLevels(NamedTuple):
    """Every image at every level, a level after another; float32 or better."""

    noisy: Float[Tensor, "m *dims"]
    sigma: Float[Tensor, " m"]
    conditioning: Given
    clean: Float[Tensor, "m *dims"]
    noise: Float[Tensor, "m *dims"]


def noisy_levels(
    clean: Tensor,
    sigmas: Float[Tensor, "levels"],
    conditioning: Given,
    generator: torch.Generator | None,
) -> NoisyLevels:
    r"""Add noise of its own to each image at each level.

    Args:
        clean: Clean images, (n, \*dims); half precision is raised to float32, where small levels are not lost.
        sigmas: Noise levels, positive.
        conditioning: What each image is conditioned on, one entry per image.
        generator: Source of the noise, on any device.

    Returns:
        What was made and what of.

    Raises:
        TypeError: If the images are not floating-point numbers.
        ValueError: If they are not finite, a level is not positive and finite, or there is not one entry per image.

    Example:
        >>> noisy_levels(torch.zeros(2, 1, 4), torch.tensor([0.5, 1.0, 2.0]), torch.tensor([7, 8]), None).conditioning
        tensor([7, 8, 7, 8, 7, 8])
    """
    if not clean.is_floating_point():
        raise TypeError(f"images must be floating-point tensors, got {clean.dtype}: scale them, as in x / 127.5 - 1")
    if not bool(clean.isfinite().all()):
        raise ValueError(f"the images hold {int((~clean.isfinite()).sum())} values that are nan or infinite; mend them")
    if not bool((sigmas > 0).all()) or not bool(sigmas.isfinite().all()):
        raise ValueError(f"noise levels must be positive and finite, got {sigmas.tolist()}")
    check_conditioning(conditioning, len(clean))
    clean = clean.to(torch.promote_types(clean.dtype, torch.float32))
    device = torch.device("cpu") if generator is None else generator.device
    shape = (len(sigmas) * len(clean), *clean.shape[1:])
    noise = torch.randn(shape, generator=generator, dtype=clean.dtype, device=device).to(clean.device)
    which = torch.arange(len(clean), device=clean.device).repeat(len(sigmas))
    sigma, repeated = sigmas.to(clean).repeat_interleave(len(clean)), clean[which]
    given = each_tensor(lambda name, each: each.to(clean.device)[which], conditioning)
    return NoisyLevels(repeated + per_example(sigma, repeated) * noise, sigma, given, repeated, noise)
