"""Wavelet coefficients of images, through the PyTorch Wavelet Toolbox."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier._real_fft import full_precision_images


def wavelet_coefficients(
    images: Float[Tensor, "b c *dims"], wavelet: str = "haar", levels: int = 2
) -> Float[Tensor, "b m"]:
    r"""Discrete wavelet transform of each image, all coefficients in a row; differentiable.

    .. math:: a_{l+1} = (a_l * h) \downarrow 2, \qquad d_{l+1} = (a_l * g) \downarrow 2, \qquad a_0 = x

    along every axis, with the low-pass filter h and the high-pass filter g of the wavelet. Images are continued by
    their mirror image (`symmetric`). For "haar" and sizes that 2^levels divides the transform is orthonormal: its
    squared distances sum to those of the images. Units: those of the images. Half and bfloat16 images are computed in
    float32. Cost: about (filter length)^n operations per pixel.

    Source: Mallat's pyramid as in PyWavelets; computed by ptwt (Wolter et al., JMLR 25, 2024), which carries gradients.
    As a loss of diffusion models: Chandran et al., arXiv 2603.02447 (Eq. 16), by absolute differences.

    Args:
        images: Real audio, images, video or volumes of any size, odd ones included.
        wavelet: Name of a discrete wavelet of PyWavelets: "haar", "db4", "sym4", "bior1.3", ...
        levels: How often the coarse part is split again.

    Returns:
        The coarse part, then the details of each level from coarse to fine; within one the subbands in PyWavelets'
        order, and within a subband channels, then positions.

    Raises:
        ImportError: If ptwt is not installed.
        TypeError: If the images are not real floating-point numbers.
        ValueError: If the wavelet is unknown, or the images are too small for that many levels or have not one to
            three axes beside examples and channels.

    Example:
        >>> images = torch.ones(1, 1, 4, 4)
        >>> wavelet_coefficients(images, levels=2)[0, :4]
        tensor([4., 0., 0., 0.])
    """
    try:
        import ptwt
        import pywt
    except ImportError as error:
        raise ImportError("wavelets need the PyTorch Wavelet Toolbox: pip install 'lsdr[wavelets]'") from error
    images = full_precision_images(images)
    dims = tuple(images.shape[2:])
    if wavelet not in pywt.wavelist(kind="discrete"):
        raise ValueError(f"unknown wavelet {wavelet!r}: expected a discrete one of PyWavelets, such as 'haar' or 'db4'")
    most = pywt.dwtn_max_level(dims, wavelet)
    if not 1 <= levels <= most:
        size = "x".join(map(str, dims))
        raise ValueError(
            f"images of {size} can be split by {wavelet!r} 1 to {most} times, got levels={levels}"
            if most
            else f"images of {size} are too small for one level of {wavelet!r}: use a shorter wavelet or larger images"
        )
    with torch.autocast(images.device.type, enabled=False):
        match len(dims):
            case 1:
                found: Any = ptwt.wavedec(images, wavelet, mode="symmetric", level=levels)
            case 2:
                found = ptwt.wavedec2(images, wavelet, mode="symmetric", level=levels)
            case _:
                found = ptwt.wavedec3(images, wavelet, mode="symmetric", level=levels)
    return torch.cat([band.flatten(1) for level in found for band in _bands(level)], 1)


def _bands(level: Any) -> list[Tensor]:
    """The subbands of one level: one tensor, a tuple of three, or seven by name."""
    if isinstance(level, Tensor):
        return [level]
    return list(level.values() if isinstance(level, dict) else level)
