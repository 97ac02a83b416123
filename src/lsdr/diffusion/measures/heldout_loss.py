"""Denoising loss on held-out images, by noise level."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.denoiser import Conditioning, Denoiser
from lsdr.diffusion.loss import denoising_loss
from lsdr.diffusion.weighting import edm_weight
from lsdr.probes.conditioning import check_conditioning, rows_of
from lsdr.probes.evaluating import evaluating


@dataclass(frozen=True)
class HeldoutLoss:
    """Denoising loss in bands of noise levels of equal probability in training, from low noise to high."""

    sigma: Float[Tensor, "bands"]
    """Median noise level of each band."""
    loss: Float[Tensor, "bands"]
    """Weighted loss in each band."""

    @property
    def mean(self) -> Float[Tensor, ""]:
        """The loss as training sees it: bands are equally probable, so it is their mean."""
        return self.loss.mean()

    @property
    def thirds(self) -> tuple[Float[Tensor, ""], ...]:
        """Mean loss over the bands of low, middle and high noise."""
        return tuple(part.mean() for part in self.loss.tensor_split(3))


@torch.no_grad()
def heldout_loss(
    denoiser: Denoiser,
    images: Float[Tensor, "n c h w"],
    *,
    labels: Conditioning = None,
    weight: Callable[[Tensor], Tensor] | None = None,
    bands: int = 9,
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> HeldoutLoss:
    r"""Denoising loss on images the model has not been trained on, per band of noise levels.

    .. math::
        \ell_b = \frac1n \sum_i w(\sigma_{ib}) \frac{1}{CHW} \|D(x_i + \sigma_{ib} \epsilon_{ib},
        \sigma_{ib}) - x_i\|^2, \qquad \sigma_{ib} = Q\!\left(\frac{b + u_{ib}}{B}\right)

    where Q is the quantile function of the training distribution of noise levels (`denoiser.draw_sigma`) and, in each
    band, u runs over n equally spaced points of [0, 1) in random order. Bands therefore have equal probability, and
    their mean estimates the training loss on new images with less variance than independent draws. The noise comes from
    `generator` alone: two models measured with generators of equal seed see the same noisy images, so their difference
    is theirs. Non-negative, 0 for a perfect denoiser; an estimate whose error falls like 1/sqrt(n * bands). Invisible
    to the model. Cost: bands * n evaluations of the denoiser.

    Source: the loss is EDM's, arXiv 2206.00364, eq. (2) and Table 1; splitting it by noise level follows its Figure 5a.

    Args:
        denoiser: The denoiser.
        images: Held-out images in [-1, 1].
        labels: Their classes, or whatever the denoiser is conditioned on, one entry per image.
        weight: Weight of the squared error at each noise level; EDM's for sigma_data = 0.5 by default.
        bands: How many bands.
        batch: Images per evaluation.
        generator: Source of the noise, on the CPU so that every device sees the same.

    Returns:
        Loss per band, with their mean and the means of the low, middle and high third.

    Raises:
        ValueError: If there are no images fewer than three bands, or not one label per image.

    Example:
        >>> from lsdr.diffusion.edm import EDMDenoiser
        >>> untrained = EDMDenoiser(lambda x, t: torch.zeros_like(x))
        >>> images = 0.5 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> round(float(heldout_loss(untrained, images, generator=torch.Generator().manual_seed(0)).mean), 1)
        1.0
    """
    if len(images) == 0 or bands < 3:
        raise ValueError(f"need at least 1 image and 3 bands, got {len(images)} images and {bands} bands")
    check_conditioning(labels, len(images))
    weight = weight or edm_weight
    losses = []
    with evaluating(denoiser):
        for band in range(bands):
            within = (torch.randperm(len(images), generator=generator) + 0.5) / len(images)
            sigma = denoiser.draw_sigma(((band + within) / bands).to(images)).to(images)
            noise = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
            total = torch.zeros((), dtype=torch.float64, device=images.device)
            for rows in torch.arange(len(images), device=images.device).split(batch):
                clean, level = images[rows], sigma[rows]
                noisy = clean + level.view(-1, 1, 1, 1) * noise[rows]
                denoised = denoiser(noisy, level, rows_of(labels, rows))
                total += denoising_loss(denoised, clean, weight(level)).sum(dtype=torch.float64)
            losses.append(total / len(images))
    middle = (torch.arange(bands) + 0.5) / bands
    sigma = denoiser.draw_sigma(middle.to(images))
    return HeldoutLoss(sigma, torch.stack(losses))
