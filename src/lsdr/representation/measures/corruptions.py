"""Common corruptions of images, with the constants of CIFAR-10-C, as functions of tensors with any number of channels.

Source: Hendrycks & Dietterich, arXiv 1903.12261, with the constants of the authors' code for CIFAR (make_cifar_c.py),
which are for images of 32 by 32 pixels. Those corruptions of theirs that need neither photographs of frost nor a
program beside are here. We deviate in not rounding the result down to bytes, and in taking any number of channels:
brightness raises the largest channel and keeps the ratios, which for three is the value of HSV; JPEG compresses
channels one by one unless there are three.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def gaussian_noise(
    images: Float[Tensor, "n c h w"], deviation: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Noise of this standard deviation in every channel of every pixel."""
    return images + deviation * _normal(images, generator)


def shot_noise(
    images: Float[Tensor, "n c h w"], photons: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Poisson noise where white is so many photons."""
    return torch.poisson(images.cpu() * photons, generator=generator).to(images) / photons


def impulse_noise(
    images: Float[Tensor, "n c h w"], amount: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """This share of the values set to 0 or 1, as many to the one as to the other."""
    drawn = torch.rand(images.shape, generator=generator).to(images)
    return torch.where(drawn < amount, (drawn < amount / 2).to(images), images)


def speckle_noise(
    images: Float[Tensor, "n c h w"], deviation: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Noise in proportion to the value."""
    return images + images * deviation * _normal(images, generator)


def gaussian_blur(
    images: Float[Tensor, "n c h w"], sigma: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """A Gaussian of standard deviation sigma pixels, cut at four of them, edges repeated."""
    reach = int(4 * sigma + 0.5)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = (-places.square() / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    flat = images.flatten(0, 1)[:, None]
    padded = F.pad(flat, (reach, reach, reach, reach), mode="replicate")
    down = F.conv2d(padded, kernel[None, None, :, None])
    return F.conv2d(down, kernel[None, None, None, :]).view_as(images)


def brightness(images: Float[Tensor, "n c h w"], more: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """The largest channel raised by this much, up to 1, the others in proportion; black becomes grey."""
    value = images.amax(1, keepdim=True)
    raised = (value + more).clamp(0, 1)
    return torch.where(value > 0, images * (raised / value.clamp_min(1e-12)), raised.expand_as(images))


def contrast(images: Float[Tensor, "n c h w"], factor: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Differences from the channel's mean over the image, times this factor."""
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * factor + mean


def pixelate(images: Float[Tensor, "n c h w"], scale: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Made smaller by this factor with a box filter, as Pillow's, and enlarged again."""
    height, width = images.shape[2:]
    for axis, side in ((2, height), (3, width)):
        small = max(1, int(side * scale))
        matrix = (_box(side, small) @ _box(small, side)).to(images)
        images = torch.movedim(torch.movedim(images, axis, -1) @ matrix, -1, axis)
    return images


def jpeg_compression(
    images: Float[Tensor, "n c h w"], quality: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """JPEG at this quality, by Pillow."""
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    colour = images.shape[1] == 3
    planes = levels.transpose(0, 2, 3, 1) if colour else levels.reshape(-1, *levels.shape[2:])
    decoded = np.stack([_jpeg(plane, int(quality)) for plane in planes])
    back = decoded.transpose(0, 3, 1, 2) if colour else decoded.reshape(levels.shape)
    return torch.from_numpy(np.ascontiguousarray(back)).to(images) / 255


@dataclass(frozen=True)
class Corruption:
    """A corruption and its constants for severities 1 to 5."""

    apply: Callable[[Tensor, float, torch.Generator], Tensor]
    constants: tuple[float, float, float, float, float]


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(shot_noise, (500.0, 250.0, 100.0, 75.0, 50.0)),
    "impulse_noise": Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": Corruption(speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption(jpeg_compression, (80.0, 65.0, 58.0, 50.0, 40.0)),
}
"""By the names of the authors' files."""


@torch.no_grad()
def corrupt(
    images: Float[Tensor, "n c h w"], name: str, severity: int, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Corrupt images in [0, 1].

    Args:
        images: Any number of channels.
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
        generator: Source of randomness, on the CPU.

    Raises:
        ValueError: If there is no such corruption or severity.

    Example:
        >>> corrupt(torch.full((1, 1, 2, 2), 0.5), "brightness", 5, torch.Generator()).unique()
        tensor([0.8])
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"there is no corruption {name!r}; there are {', '.join(CORRUPTIONS)}")
    if severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"severity must be 1 to 5, got {severity}")
    chosen = CORRUPTIONS[name]
    return chosen.apply(images, chosen.constants[severity - 1], generator).clamp(0, 1)


def _normal(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(images.shape, generator=generator).to(images)


def _box(inner: int, outer: int) -> Float[Tensor, "_ _"]:
    """Pillow's box filter that makes `outer` values of `inner` ones, as a matrix for rows of them."""
    scale = inner / outer
    reach = max(scale, 1.0) / 2
    matrix = torch.zeros(inner, outer, dtype=torch.float64)
    for column in range(outer):
        centre = (column + 0.5) * scale
        low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), inner)
        offsets = (torch.arange(low, high, dtype=torch.float64) - centre + 0.5) / max(scale, 1.0)
        weights = ((offsets > -0.5) & (offsets <= 0.5)).double()
        matrix[low:high, column] = weights / weights.sum()
    return matrix


def _jpeg(plane: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(plane).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))
