"""A small network that tells real from generated images by their spectrum alone."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum

# Below the power of pixels rounded to 8 bits, relative to that of the images.
_FLOOR = 1e-6
_QUIETEST, _LOUDEST = 1e-3, 1e3


def spectral_profile(
    images: Float[Tensor, "n c *dims"], power: float | Float[Tensor, ""] = 1.0
) -> Float[Tensor, "n features"]:
    r"""Logarithm of each channel's radial power spectrum; differentiable.

    .. math:: \phi_{ck} = \ln (P_{ck} + 10^{-6} p)

    with P of `radial_power_spectrum`, diagonal frequencies included (a chessboard of pixels is one of them). Natural
    logarithm; the floor keeps constant images finite. Half and bfloat16 images are computed in float32. Cost: one real
    FFT per channel.

    Args:
        images: Audio, images or video, with at least two pixels on the longest axis.
        power: p, the mean power of a pixel (about the mean) of images of this kind.

    Returns:
        One row an image: the spectra of its channels, one after another, each from frequency zero up.

    Raises:
        ValueError: If there is no frequency but zero, or the images have not one to three axes.

    Example:
        >>> spectral_profile(torch.randn(5, 3, 16, 16)).shape
        torch.Size([5, 36])
    """
    spectrum = radial_power_spectrum(images.flatten(0, 1).unsqueeze(1), corners=True).power
    with torch.autocast(images.device.type, enabled=False):
        profile: Tensor = (spectrum + _FLOOR * power).log()
        return profile.reshape(len(images), -1)


class SpectralCritic(nn.Module):
    r"""Judge images by their spectral profile: a multilayer perceptron's logit, positive for real.

    .. math:: \ell(x, \sigma) = \mathrm{MLP}\left( \frac{\phi(x) - \mu}{s}, \; \tfrac14 \ln \sigma \right)

    with two hidden layers and :math:`\phi` of `spectral_profile`. The last layer starts at zero, so an untrained critic
    says 0 of everything and pushes nowhere. It sees neither phases nor directions: shifting images, or flipping square
    ones, changes nothing.

    Gradients reach the images. Cost: one real FFT per channel and a few thousand multiplications per image.

    Source: SSD-GAN, Chen et al., arXiv 2012.05535, a spectral classifier beside a GAN's discriminator, on the reduced
    spectrum of grey images without a logarithm. Its published code computes the spectrum in NumPy, which detaches it:
    there the classifier only reweighs examples. Here the spectrum stays in the graph, and every channel has its own.

    Args:
        channels: Channels of the images.
        size: Their size along each of the one to three axes.
        hidden: Width of the hidden layers.
        generator: Source of the weights; None draws from torch's global one.

    Raises:
        ValueError: If a number is not positive, or no axis has two pixels.

    Example:
        >>> critic = SpectralCritic(3, (16, 16))
        >>> critic(torch.randn(5, 3, 16, 16), sigma=torch.full((5,), 0.5)).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    centre: Tensor
    scale: Tensor
    power: Tensor

    def __init__(
        self, channels: int, size: tuple[int, ...], hidden: int = 64, *, generator: torch.Generator | None = None
    ):
        super().__init__()
        if min(channels, hidden, *size, len(size)) < 1:
            raise ValueError(f"channels, size and hidden must be positive, got {channels}, {size}, {hidden}")
        self.shape = (channels, *size)
        features = spectral_profile(torch.zeros(1, *self.shape)).shape[1]
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("power", torch.ones(()))
        widths = [features + 1, hidden, hidden, 1]
        # Not drawn from torch's global generator first.
        layers = [nn.utils.skip_init(nn.Linear, wide, narrow) for wide, narrow in pairwise(widths)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_features), generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)
        self.network = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def profile(self, images: Float[Tensor, "n c *dims"]) -> Float[Tensor, "n features"]:
        """The images' `spectral_profile`, as `judge` takes it.

        Raises:
            ValueError: If the images have not the shape that the critic was made for.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"this critic judges images of shape {self.shape} (channels, then size), got {tuple(images.shape[1:])}"
            )
        return spectral_profile(images, self.power)

    def judge(
        self, profile: Float[Tensor, "n features"], sigma: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, " n"]:
        """The logits of images with these profiles.

        Args:
            profile: What `profile` gave.
            sigma: Noise level that each image was estimated from, shape (n,) or (); None is no noise.

        Returns:
            Logits, shape (n,).
        """
        with torch.autocast(profile.device.type, enabled=False):
            profile = (profile.to(self.centre) - self.centre) / self.scale
            level = torch.zeros(()) if sigma is None else sigma
            level = level.to(profile).clamp(_QUIETEST, _LOUDEST).log().expand(len(profile)) / 4
            logits: Tensor = self.network(torch.cat([profile, level[:, None]], 1)).squeeze(1)
        return logits

    def forward(
        self, images: Float[Tensor, "n c *dims"], sigma: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, " n"]:
        """The images' logits; see `judge`."""
        return self.judge(self.profile(images), sigma)

    @torch.no_grad()
    def standardize_(
        self, mean: Float[Tensor, "features"], deviation: Float[Tensor, "features"], power: Float[Tensor, ""]
    ) -> None:
        """Set what profiles are measured by.

        Args:
            mean: Mean profile of real images.
            deviation: Its standard deviation; below 0.1 counts as 0.1.
            power: Their mean power, for `spectral_profile`.
        """
        self.centre.copy_(mean)
        self.scale.copy_(deviation.clamp(min=0.1))
        self.power.copy_(power)
