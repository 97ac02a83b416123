"""The best linear estimate under noise: what of each frequency remains."""

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier._real_fft import full_precision_images


def wiener_gain(variance: Float[Tensor, "*spectrum"], sigma: Float[Tensor, "*noise"]) -> Float[Tensor, "..."]:
    r"""Share of each coefficient that the best linear estimate keeps under white noise.

    .. math:: g = \frac{S}{S + \sigma^2} \in [0, 1]

    It is also the share of the power that the best estimate has of the data's: a denoiser that is right about Gaussian
    data answers with the power :math:`S\, g`, not S; for other data it lies between the two, because no estimate is
    worse than the best linear one. Nothing is kept where there is no variance (0/0 is 0) or the noise is infinite, all
    where there is no noise. Differentiable.

    Source: Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949.

    Args:
        variance: Variance of the data's coefficients in an orthonormal transform, any shape; rounding below 0 counts
            as 0.
        sigma: Standard deviations of the noise, any shape.

    Returns:
        A gain for every pair, of the shape of `sigma` followed by that of `variance`.

    Example:
        >>> wiener_gain(torch.tensor([4.0, 0.0]), torch.tensor([0.0, 2.0, torch.inf]))
        tensor([[1.0000, 0.0000],
                [0.5000, 0.0000],
                [0.0000, 0.0000]])
    """
    noise = sigma.square().reshape(*sigma.shape, *[1] * variance.ndim)
    nothing = variance <= 0
    # 1 / (1 + noise / variance) has its limits right: infinite noise, infinite variance.
    gain = 1 / (1 + noise / torch.where(nothing, 1, variance))
    return torch.where(nothing, 0, gain)


def filtered(
    images: Float[Tensor, "b c *dims"], gain: Float[Tensor, "..."], mean: Float[Tensor, "..."]
) -> Float[Tensor, "b c *dims"]:
    r"""Images whose deviation from the mean is multiplied by a gain per frequency; differentiable.

    .. math:: y = m + \mathrm{FFT}^{-1}\left( g \odot \mathrm{FFT}(x - m) \right)

    With the Wiener gain g and x = clean + noise this is the best linear estimate; with its square root and the clean
    image itself it is an image of the power that estimate has, and the clean image's phases. Half and bfloat16 images
    are computed in float32. Cost: two real FFTs per channel.

    Args:
        images: Real audio, images, video or volumes of any size.
        gain: Real gains, broadcast against (b, c, *frequencies), the shape of `torch.fft.rfftn` over all axes but the
            first two. A variance of real images has the symmetry that a gain needs.
        mean: What the gain leaves alone, broadcast against the images.

    Returns:
        The filtered images, in the images' own precision whatever that of the gain.

    Raises:
        TypeError: If the images are not real floating-point numbers.
        ValueError: If they have not one to three axes beside examples and channels, or `gain` does not fit.

    Example:
        >>> images = torch.tensor([[[1.0, 3.0, 1.0, 3.0]]])
        >>> filtered(images, torch.tensor([1.0, 1.0, 0.5]), mean=torch.tensor(2.0))
        tensor([[[1.5000, 2.5000, 1.5000, 2.5000]]])
    """
    images = full_precision_images(images)
    dims = tuple(images.shape[2:])
    frequencies = (*images.shape[:2], *dims[:-1], dims[-1] // 2 + 1)
    if not _fits(gain.shape, frequencies) or not _fits(mean.shape, images.shape):
        raise ValueError(
            f"images of shape {tuple(images.shape)} need a gain that broadcasts to {frequencies}, the shape of their "
            f"rfftn, and a mean that broadcasts to them; got {tuple(gain.shape)} and {tuple(mean.shape)}"
        )
    axes, gain, mean = tuple(range(2, images.ndim)), gain.to(images), mean.to(images)
    with torch.autocast(images.device.type, enabled=False):
        transform = torch.fft.rfftn(images - mean, dim=axes, norm="ortho")
        deviation: Tensor = torch.fft.irfftn(gain * transform, s=dims, dim=axes, norm="ortho")
    return mean + deviation


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to another without changing it."""
    return len(shape) <= len(target) and all(
        mine in (1, theirs) for mine, theirs in zip(reversed(shape), reversed(target), strict=False)
    )
