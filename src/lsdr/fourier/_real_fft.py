"""What the transforms of real images share."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def full_precision_images(images: Tensor) -> Float[Tensor, "n c *dims"]:
    """Images in float32 or float64, of 1 to 3 dimensions; half and bfloat16 are raised to float32.

    Raises:
        TypeError: If they are not real floating-point numbers.
        ValueError: If they have no axis of examples, of channels, or none or more than three others.
    """
    if not images.is_floating_point():
        raise TypeError(
            f"images must be real floating-point tensors, got {images.dtype}: scale them first, as in x / 127.5 - 1"
        )
    if not 3 <= images.ndim <= 5:
        raise ValueError(
            "images must be (examples, channels, ...) with 1 to 3 further axes (audio, image or video), "
            f"got the shape {tuple(images.shape)}"
        )
    return images.float() if images.dtype.itemsize < 4 else images


def real_fft(images: Float[Tensor, "n c *dims"]) -> Complex[Tensor, "n c *frequencies"]:
    """Orthonormal FFT over all axes but the first two; of the last axis the non-negative frequencies only."""
    images = full_precision_images(images)
    with torch.autocast(images.device.type, enabled=False):
        coefficients: Tensor = torch.fft.rfftn(images, dim=tuple(range(2, images.ndim)), norm="ortho")
    return coefficients


def multiplicity(dims: tuple[int, ...]) -> Float[Tensor, "*frequencies"]:
    """How often each coefficient of a real FFT stands in the full one: the mirror image of most is left out."""
    last = torch.full((dims[-1] // 2 + 1,), 2.0, dtype=torch.float64)
    last[0] = 1
    if dims[-1] % 2 == 0:
        last[-1] = 1
    return last.expand(*dims[:-1], -1)
