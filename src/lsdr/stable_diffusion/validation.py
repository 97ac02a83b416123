"""What is looked at while a fine-tune goes on: the loss under fixed noise, and prompts rendered from fixed noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.diffusion.denoiser import Denoiser, per_example
from lsdr.diffusion.euler import euler
from lsdr.diffusion.guidance import GuidedDenoiser
from lsdr.diffusion.loss import denoising_loss
from lsdr.probes.conditioning import rows_of, tensors_of
from lsdr.probes.evaluating import evaluating
from lsdr.stable_diffusion.latents import decode_latents
from lsdr.stable_diffusion.network import sampling_sigmas
from lsdr.training.order import stream_seed

# Fixed, so that losses and pictures compare over steps, methods and seeds.
_SEED = 20240601
_BANDS = 6
_THIRDS = ("low", "mid", "high")


@dataclass(frozen=True)
class Prompts:
    """What is rendered: how to condition on it, and on nothing.

    Attributes:
        texts: The prompts.
        conditioning: What the denoiser is given, one entry a prompt.
        unconditional: The same for the empty prompt, one entry.
        shape: Of a latent (channels, height, width).
        guidance: Strength of classifier-free guidance.
        steps: Sampler steps.
        shift: How far a flow's noise levels are shifted upwards.
    """

    texts: tuple[str, ...]
    conditioning: Mapping[str, Any]
    unconditional: Mapping[str, Any]
    shape: tuple[int, int, int]
    guidance: float
    steps: int
    shift: float = 1.0


@torch.no_grad()
def fixed_noise_loss(
    denoiser: Denoiser,
    batches: Sequence[Mapping[str, Tensor]],
    condition: Callable[[Mapping[str, Tensor]], Mapping[str, Any]],
    weight: Callable[[Denoiser, Tensor], Tensor],
    levels: Callable[[Denoiser, Tensor], Tensor],
) -> dict[str, float]:
    r"""Denoising loss of the same latents under the same noise every time, as a whole and by noise level.

    .. math:: \ell = \frac{1}{nB} \sum_{ib} w(\sigma_{ib}) \frac{1}{CHW}
        \lVert D(z_i + \sigma_{ib}\,\epsilon_{ib}, \sigma_{ib}, c_i) - z_i \rVert^2, \qquad
        \sigma_{ib} = Q\!\left(\frac{b + u_i}{B}\right)

    with Q the quantile function of the training's noise levels, B = 6 bands of equal probability, and u_i spread evenly
    over [0, 1). Latents are the means of the VAE's posterior. Two models see the same noisy latents, so their
    difference is theirs. Cost: 6 evaluations of the network for each latent. Training flags and generators are left as
    they were.

    Source: `lsdr.diffusion.measures.heldout_loss`, for latents of several shapes with text.

    Args:
        denoiser: The denoiser.
        batches: Batches of one shape each: "mean" (b, c, h, w) and what `condition` needs.
        condition: What the denoiser is conditioned on for a batch.
        weight: Weight of the squared error, of the denoiser and noise levels.
        levels: The training's noise levels, of the denoiser and numbers in [0, 1).

    Returns:
        "loss", and "loss_low_noise", "loss_mid_noise", "loss_high_noise" for thirds of the noise levels.

    Raises:
        ValueError: If there is no latent.
    """
    count = sum(len(batch["mean"]) for batch in batches)
    if count == 0:
        raise ValueError("there is no latent to measure the loss on; give at least one batch with an example")
    generator = torch.Generator().manual_seed(stream_seed(_SEED, "loss"))
    within = (torch.randperm(count, generator=generator) + 0.5) / count
    bands: list[list[Tensor]] = [[] for _ in range(_BANDS)]
    with evaluating(denoiser):
        first = 0
        for batch in batches:
            clean = batch["mean"].float()
            part = within[first : first + len(clean)]
            first += len(clean)
            conditioning = condition(batch)
            for band, losses in enumerate(bands):
                sigma = levels(denoiser, ((band + part) / _BANDS).to(clean))
                noise = torch.randn(clean.shape, generator=generator).to(clean.device)
                denoised = denoiser(clean + per_example(sigma, clean) * noise, sigma, conditioning)
                losses.append(denoising_loss(denoised, clean, weight(denoiser, sigma)))
    means = torch.stack([torch.cat(losses).double().mean() for losses in bands])
    thirds = {f"loss_{name}_noise": float(third.mean()) for name, third in zip(_THIRDS, means.chunk(3), strict=True)}
    return {"loss": float(means.mean()), **thirds}


@torch.no_grad()
def render(denoiser: Denoiser, vae: nn.Module, prompts: Prompts) -> Tensor:
    """Pictures of the prompts, each from its own fixed noise, by Euler steps and classifier-free guidance.

    One prompt at a time, so that memory is that of two latents whatever the number of prompts. The VAE is moved to the
    latents' device for decoding and back again.

    Args:
        denoiser: The denoiser; its network is held in evaluation mode.
        vae: The VAE that decodes.
        prompts: What to render.

    Returns:
        Pixels in [-1, 1], shape (prompts, 3, H, W), on the CPU.
    """
    guided = GuidedDenoiser(denoiser, prompts.guidance, prompts.unconditional)
    sigmas = sampling_sigmas(denoiser, prompts.steps, prompts.shift)
    device = tensors_of(prompts.conditioning)[0].device
    home = next(vae.parameters()).device
    with evaluating(denoiser):
        latents = []
        for number in range(len(prompts.texts)):
            generator = torch.Generator().manual_seed(stream_seed(_SEED, "picture", number))
            noise = torch.randn((1, *prompts.shape), generator=generator).to(device)
            latents.append(
                euler(guided, noise, sigmas.to(device), rows_of(prompts.conditioning, slice(number, number + 1)))
            )
    try:
        vae.to(device)
        pictures = [decode_latents(vae, latent).float().cpu() for latent in latents]
    finally:
        vae.to(home)
    return torch.cat(pictures)
