"""A fine-tune as a task of the training loop: latents with captions, a denoiser, its loss, prompts rendered."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from lsdr.data.grid import image_grid
from lsdr.diffusion.denoiser import Denoiser, per_example
from lsdr.diffusion.loss import denoising_loss
from lsdr.monitor.probe import Probe
from lsdr.stable_diffusion.network import network_conditioning
from lsdr.stable_diffusion.pipeline import Family
from lsdr.stable_diffusion.validation import Prompts, fixed_noise_loss, render

_BLOCKS = re.compile(r"(^|\.)(resnets|transformer_blocks)\.\d+$")


@dataclass
class StableDiffusionTask:
    r"""Fine-tune a text-conditioned denoiser on latents.

    .. math:: z = \mu + s \odot \zeta, \quad \epsilon' = \epsilon + k\,o, \quad
        \ell = p\, w(\sigma)\, \tfrac{1}{CHW} \lVert D(z + \sigma \epsilon', \sigma, c) - z \rVert^2

    with the VAE's posterior (mu, s) and standard normal zeta, epsilon; offset noise o, constant over a channel, of
    strength k; the empty caption in place of c for a share of the examples; and p = `prior_weight` for prior images, 1
    for the others. Written on the clean latent, a weight like min-SNR has nothing to divide by at zero terminal
    signal-to-noise ratio.

    Source: Rombach et al. 2022, section 3.3; offset noise: Guttenberg 2023, "Diffusion with offset noise"; prior
    preservation: Ruiz et al. 2023, eq. 2, with prior images mixed into the data instead of paired in each batch;
    caption dropout: Ho & Salimans 2022, Algorithm 1.
    """

    model: nn.Module
    denoiser: Callable[[nn.Module], Denoiser]
    """Makes the denoiser around the network, its average, or the network wrapped for ranks."""
    weight: Callable[[Denoiser, Tensor], Tensor]
    """Weight of the loss at each noise level."""
    family: Family
    dataset: Dataset[Any]
    """Encoded examples to train on."""
    names: Callable[[int], str]
    largest: int
    """Elements of the largest latent."""
    channels: int
    """Channels of a latent."""
    heldout: Sequence[Mapping[str, Tensor]]
    """Batches of one shape each, for the loss under fixed noise, on the device."""
    unseen: bool
    """Whether these were kept out of training."""
    empty: Mapping[str, Tensor]
    """Embeddings of the empty caption, one row each, on the device."""
    vae: nn.Module
    prompts: Prompts | None
    offset_noise: float = 0.0
    caption_dropout: float = 0.0
    prior_weight: float = 1.0
    shift: float = 1.0
    """How far a flow's noise levels are shifted upwards; its scheduler says so."""
    watch: Callable[[nn.Module], Mapping[str, Probe] | None] = field(default=lambda model: None)
    """The probes that watch a model while it trains; None for the loop's own."""
    warn: Callable[[Mapping[str, float], int], list[dict[str, Any]]] = field(default=lambda values, step: [])
    """What to say of monitored values."""

    def draws(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """All randomness of a batch, for latents of the largest shape: a smaller one takes the first of it."""
        device, largest = generator.device, self.largest
        return {
            "noise": torch.randn((count, largest), generator=generator, device=device),
            "posterior": torch.randn((count, largest), generator=generator, device=device),
            "offset": torch.randn((count, self.channels), generator=generator, device=device),
            "uniform": torch.rand(count, generator=generator, device=device),
            "drop": torch.rand(count, generator=generator, device=device) < self.caption_dropout,
        }

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Weighted denoising loss of each example."""
        mean = batch["mean"]
        clean = mean + batch["std"] * _shaped(batch["posterior"], mean)
        noise = _shaped(batch["noise"], mean)
        if self.offset_noise:
            noise = noise + self.offset_noise * batch["offset"][:, :, None, None]
        denoiser, conditioning = self.denoiser(model), self.conditioning(batch, batch["drop"])
        sigma = self.levels(denoiser, batch["uniform"])
        noisy = clean + per_example(sigma, clean) * noise
        denoised = denoiser(noisy, sigma, conditioning)
        losses = denoising_loss(denoised, clean, self.weight(denoiser, sigma))
        losses = torch.where(batch["prior"], self.prior_weight * losses, losses)
        context = {"denoiser": denoiser, "noisy": noisy, "sigma": sigma, "denoised": denoised, "clean": clean}
        return losses, {**context, "conditioning": conditioning}

    def conditioning(self, batch: Mapping[str, Tensor], drop: Tensor | None = None) -> Mapping[str, Any]:
        """What the denoiser is conditioned on: the captions, or the empty one where `drop` says so."""
        embeddings = {name: batch[name] for name in self.empty}
        if drop is not None:
            embeddings = {
                name: torch.where(drop.view(-1, *[1] * (value.ndim - 1)), self.empty[name].to(value), value)
                for name, value in embeddings.items()
            }
        return network_conditioning(self.family, embeddings, batch.get("time_ids"))

    def levels(self, denoiser: Denoiser, uniform: Tensor) -> Tensor:
        """Noise levels of the training: the denoiser's, shifted as t' = s t / (1 + (s - 1) t), which is s sigma."""
        sigma = denoiser.draw_sigma(uniform)
        return sigma if self.shift == 1 else (self.shift * sigma).clamp(max=denoiser.sigma_max)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The loss under fixed noise, on the held-out pictures or, where there are none, on some of the training's."""
        found = fixed_noise_loss(self.denoiser(model), self.heldout, self.conditioning, self.weight, self.levels)
        return {f"{'heldout' if self.unseen else 'seen'}_{name}": value for name, value in found.items()}

    def picture(self, model: nn.Module) -> Image.Image | None:
        """The prompts, rendered from the same noise every time."""
        if self.prompts is None:
            return None
        pixels = render(self.denoiser(model), self.vae, self.prompts)
        return image_grid(pixels, columns=min(4, len(pixels)), least_side=1)

    def feature_layers(self) -> re.Pattern[str] | None:
        """The blocks of a UNet; those of a transformer put out text and picture in pairs, and are left alone."""
        return _BLOCKS if hasattr(self.model, "mid_block") else None

    def probes(self, model: nn.Module) -> Mapping[str, Probe] | None:
        """What the monitor watches."""
        return self.watch(model)

    def on_monitored(self, values: Mapping[str, float], step: int) -> list[dict[str, Any]]:
        """Warnings that monitored values give rise to."""
        return self.warn(values, step)

    def name(self, index: int) -> str:
        """File name of the picture with this index."""
        return self.names(index)


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    """The first of flat draws, as a latent."""
    return flat[:, : like[0].numel()].view_as(like)
