"""Diffusion as a task of the training loop: images, a denoiser, its loss, held-out values and samples."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from lsdr.data.grid import image_grid
from lsdr.data.subset import Images, to_pixels
from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.heun import heun
from lsdr.diffusion.loss import denoising_loss
from lsdr.diffusion.measures.heldout_loss import heldout_loss
from lsdr.diffusion.sigmas import karras_sigmas
from lsdr.training.order import stream_seed

# Held-out loss and pictures along the way use a fixed seed, so that they compare over steps, methods and seeds.
_MEASURE_SEED = 20240601
_BLOCKS = re.compile(r"(^|\.)(resnets|transformer_blocks)\.\d+$")


@dataclass
class DiffusionTask:
    """Train a denoiser on images.

    The loss of an example is w(sigma) ||D(x + sigma n, sigma) - x||^2 / (C H W), with sigma from the denoiser's
    published training distribution.
    """

    model: nn.Module
    denoiser: Callable[[nn.Module], Denoiser]
    """Makes the denoiser around the model, its average, or the model wrapped for ranks."""
    weight: Callable[[Denoiser, Tensor], Tensor]
    """Weight of the loss at each noise level."""
    dataset: Dataset[Any]
    heldout: Images
    names: Callable[[int], str]
    shape: tuple[int, int, int]
    flip: bool
    conditional: bool
    picture_steps: int = 12

    def draws(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise, the uniform number that becomes the noise level, and who is mirrored."""
        device = generator.device
        return {
            "noise": torch.randn((count, *self.shape), generator=generator, device=device),
            "uniform": torch.rand(count, generator=generator, device=device),
            "flip": torch.rand(count, generator=generator, device=device) < 0.5,
        }

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Weighted denoising loss of each example."""
        clean = to_pixels(batch["image"])
        if self.flip:
            clean = torch.where(batch["flip"].view(-1, 1, 1, 1), clean.flip(-1), clean)
        denoiser, labels = self.denoiser(model), batch["label"] if self.conditional else None
        sigma = denoiser.draw_sigma(batch["uniform"])
        noisy = clean + sigma.view(-1, 1, 1, 1) * batch["noise"]
        denoised = denoiser(noisy, sigma, labels)
        losses = denoising_loss(denoised, clean, self.weight(denoiser, sigma))
        context = {"denoiser": denoiser, "noisy": noisy, "sigma": sigma, "denoised": denoised, "clean": clean}
        return losses, {**context, "conditioning": labels}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The held-out denoising loss, on the same images and noise every time."""
        denoiser, images = self.denoiser(model), self.heldout
        result = heldout_loss(
            denoiser,
            images.pixels,
            labels=images.labels if self.conditional else None,
            weight=partial(self.weight, denoiser),
            bands=3,
            generator=torch.Generator().manual_seed(stream_seed(_MEASURE_SEED, "heldout")),
        )
        return {"heldout_loss": float(result.mean)}

    @torch.no_grad()
    def picture(self, model: nn.Module) -> Image.Image:
        """A grid of 16 samples, from the same noise every time."""
        device = self.heldout.pixels.device
        generator = torch.Generator(device=device).manual_seed(stream_seed(_MEASURE_SEED, "picture"))
        noise = torch.randn((16, *self.shape), generator=generator, device=device)
        denoiser = self.denoiser(model)
        labels = None
        if self.conditional and self.heldout.labels is not None:
            labels = torch.arange(16, device=device) % (int(self.heldout.labels.max()) + 1)
        sigmas = karras_sigmas(self.picture_steps, max(denoiser.sigma_min, 2e-3), min(denoiser.sigma_max, 80.0))
        return image_grid(heun(denoiser, noise, sigmas.to(device), labels), columns=8)

    def feature_layers(self) -> re.Pattern[str] | None:
        """The residual or transformer blocks, if the model has any."""
        return _BLOCKS if any(_BLOCKS.search(name) for name, _ in self.model.named_modules()) else None

    def name(self, index: int) -> str:
        """File name or row of the image with this index."""
        return self.names(index)
