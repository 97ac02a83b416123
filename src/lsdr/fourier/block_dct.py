"""Cosine transform of blocks, and what is JPEG's own about it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier._real_fft import full_precision_images

# ITU-T T.81, tables K.1 and K.2: steps of the coefficients at quality 50, rows are vertical frequencies.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)


def block_dct(images: Float[Tensor, "b c *dims"], size: int = 8) -> Float[Tensor, "b c *blocks coefficients"]:
    r"""Orthonormal cosine transform (DCT-II) of each block of each image; differentiable.

    .. math::
        y_k = \sqrt{\frac{2 - [k = 0]}{s}} \sum_{j=0}^{s-1} x_j \cos \frac{\pi (2 j + 1) k}{2 s}
        \qquad \text{along every axis}

    Axes that `size` does not divide are continued by their last row, as JPEG coders do; without such rows the sum of
    squares is that of the images. Units: those of the images. Half and bfloat16 images are computed in float32. Cost:
    2 s operations per pixel and axis.

    Source: ITU-T T.81 (JPEG), A.3.3, with s = 8; as a loss of diffusion models DeCo, arXiv 2511.19365.

    Args:
        images: Real audio, images, video or volumes of any size.
        size: Side of a block, in pixels, along every axis.

    Returns:
        Per example and channel the blocks along each axis, then the size^n coefficients of a block, the last axis'
        frequency running fastest.

    Raises:
        TypeError: If the images are not real floating-point numbers.
        ValueError: If they have not one to three axes beside examples and channels, or `size` is below 1.

    Example:
        >>> block_dct(torch.ones(1, 3, 12, 16)).shape
        torch.Size([1, 3, 2, 2, 64])
        >>> constant = block_dct(torch.ones(1, 1, 8, 8)).flatten()
        >>> round(constant[0].item(), 4), bool(constant[1:].abs().max() < 1e-6)
        (8.0, True)
    """
    if size < 1:
        raise ValueError(f"size is the side of a block in pixels: expected at least 1, got {size}")
    blocks = full_precision_images(images)
    axes = blocks.ndim - 2
    for axis, length in enumerate(blocks.shape[2:], start=2):
        if length % size:
            within = torch.arange(-(-length // size) * size, device=images.device).clamp_max(length - 1)
            blocks = blocks.index_select(axis, within)
    for axis in range(axes):
        blocks = blocks.unflatten(2 + 2 * axis, (-1, size))
    # b c (blocks in) (blocks in) ... -> b c blocks blocks ... in in ...
    blocks = blocks.permute(0, 1, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2))
    with torch.autocast(images.device.type, enabled=False):
        basis = _cosines(size).to(blocks)
        for _ in range(axes):  # each turn transforms the first axis in a block and moves it to the end
            blocks = blocks.movedim(-axes, -1) @ basis
    return blocks.flatten(-axes)


def jpeg_weights(table: str = "luminance") -> Float[Tensor, "64"]:
    r"""Weights of the 8x8 cosine coefficients by how much JPEG keeps of them: one over its quantisation steps.

    .. math:: w_k = \frac{1 / Q_k}{\tfrac{1}{64} \sum_j 1 / Q_j}, \qquad Q = \lfloor (30\, Q_{50} + 50) / 100 \rfloor

    that is a table of ITU-T T.81 (K.1 or K.2) at quality 85 by the scaling of the IJG's libjpeg, in the order of
    `block_dct` (not the zigzag of files). Coarse patterns weigh most, fine ones least. The mean is 1, so a loss keeps
    its scale. They suit pixels in colours or grey, not the latents of an autoencoder.

    Source: DeCo, arXiv 2511.19365, whose code weights brightness by the first table and colour differences by the
    second.

    Args:
        table: "luminance" for brightness and grey, "chrominance" for colour differences.

    Returns:
        64 weights of mean 1, in float64.

    Raises:
        ValueError: If the table is unknown.

    Example:
        >>> weights = jpeg_weights().reshape(8, 8)
        >>> round(weights.mean().item(), 6), round(weights[0, 0].item(), 2), round(weights[7, 7].item(), 2)
        (1.0, 2.01, 0.34)
    """
    tables = {"luminance": _LUMINANCE, "chrominance": _CHROMINANCE}
    if table not in tables:
        raise ValueError(f"unknown table {table!r}: JPEG has 'luminance' and 'chrominance'")
    steps = ((30 * torch.tensor(tables[table], dtype=torch.float64) + 50) / 100).floor()
    weights = 1 / steps.flatten()
    return weights / weights.mean()


def rgb_to_ycbcr(images: Float[Tensor, "b c *dims"]) -> Float[Tensor, "b 3 *dims"]:
    r"""Brightness and two colour differences of colour images; linear and differentiable.

    .. math:: Y = 0.299 R + 0.587 G + 0.114 B, \qquad C_b = (B - Y) / 1.772, \qquad C_r = (R - Y) / 1.402

    Colours in [-1, 1] give three channels in [-1, 1]; grey has C_b = C_r = 0. Values beyond the range, as estimates
    have, are converted by the same formula. Half and bfloat16 images are computed in float32.

    Source: JFIF 1.02 (ITU-R BT.601), without its offset, which the range [-1, 1] does not need.

    Args:
        images: Images or video in red, green and blue. Pixels, not the latents of an autoencoder, whose channels are
            no colours.

    Returns:
        The channels Y, C_b and C_r.

    Raises:
        TypeError: If the images are not real floating-point numbers.
        ValueError: If there are not three channels.

    Example:
        >>> rgb_to_ycbcr(torch.tensor([-1.0, -1.0, 1.0]).reshape(1, 3, 1, 1)).flatten()  # blue
        tensor([-0.7720,  1.0000, -0.1626])
    """
    images = full_precision_images(images)
    if images.shape[1] != 3:
        raise ValueError(
            f"colours are three channels, red, green and blue; got {images.shape[1]} channels. Grey images need no "
            "conversion, and the latents of an autoencoder have none"
        )
    red, green, blue = images.unbind(1)
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([brightness, (blue - brightness) / 1.772, (red - brightness) / 1.402], 1)


def _cosines(size: int) -> Float[Tensor, "in out"]:
    """The orthonormal DCT-II as a matrix that values are multiplied by from the left."""
    position = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / (2 * size) * (2 * position[:, None] + 1) * position) * math.sqrt(2 / size)
    basis[:, 0] = 1 / math.sqrt(size)
    return basis
