"""Spectral features of images in which `SpectralDiscriminator` compares estimates with real ones."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier.amplitude_phase import coefficients
from lsdr.fourier.block_dct import block_dct, jpeg_weights, rgb_to_ycbcr
from lsdr.fourier.radial_power_spectrum import radial_power_spectrum
from lsdr.fourier.wavelet import wavelet_coefficients

# Of the data's own power, ring by ring: what is 10 dB below it or less counts as nothing. A floor that does not follow
# the data's spectrum, 60 dB below its mean power, doubled the held-out loss on 8x8 digits.
_FLOOR = 0.1
# Of the mean over rings, for rings that are empty in all of the data: below what rounding to 8 bits adds.
_EMPTY = 1e-6


class Coordinates(NamedTuple):
    """What a feature sees in images: m coordinates of each, of one or more real components."""

    values: Float[Tensor, "b m components"]
    weight: Float[Tensor, "m"]
    """What a coordinate counts in the mean; positive, any scale."""


class Component(NamedTuple):
    """One component of a feature's coordinates; squared distances are sums over components."""

    factor: float
    """Factor of its squared difference."""
    power: bool
    """Whether it holds magnitudes, which noise makes smaller in the best estimate; else the best estimate is the mean
    of what may be, and no correction is needed."""


@dataclass(frozen=True)
class AmplitudePhase:
    r"""Fourier coefficients, with weights of their own for amplitude and phase.

    .. math::
        d^2 = \alpha (A - A')^2 + \varphi\, 2 A A' (1 - \cos \Delta) = \varphi |F - F'|^2 + (\alpha - \varphi)(A - A')^2

    See `amplitude_phase_distance`: there is no branch cut, and equal weights are the mean squared error itself. Under a
    noise correction A' in the last term is the corrected amplitude (a negative d^2, which phi > alpha then allows,
    counts as 0), and \|F - F'\|^2 stays, because the posterior mean minimises it as it is.

    Args:
        amplitude: alpha, of the amplitudes' squared difference.
        phase: phi, of what is left of the squared error where the amplitudes agree.
        focal: Weigh each coefficient by its distance to this power over the largest, without gradient (`focal_weight`);
            0 weighs them alike.

    Raises:
        ValueError: If a number is negative or not finite, or both weights are 0.

    Example:
        >>> AmplitudePhase(amplitude=1, phase=0.1).coordinates(torch.zeros(2, 3, 8, 8), None).values.shape
        torch.Size([2, 120, 3])
    """

    amplitude: float | int = 1
    phase: float | int = 1
    focal: float | int = 0

    def __post_init__(self) -> None:
        for name in ("amplitude", "phase", "focal"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.amplitude == self.phase == 0:
            raise ValueError("amplitude and phase are both 0, so nothing would be compared; give one of them a weight")

    @property
    def name(self) -> str:
        """Which is "focal" where coefficients are weighted by their error, else "amplitude_phase"."""
        return "focal" if self.focal else "amplitude_phase"

    @property
    def components(self) -> tuple[Component, ...]:
        """Real and imaginary part where phase counts, and amplitude where it counts differently."""
        found = (Component(self.phase, power=False),) * 2 if self.phase else ()
        return found if self.amplitude == self.phase else (*found, Component(self.amplitude - self.phase, power=True))

    def coordinates(self, images: Float[Tensor, "b c *dims"], rings: Tensor | None) -> Coordinates:
        """Every coefficient of the real FFT; its weight is how often it stands in the full one."""
        values, multiplicity = coefficients(images)
        parts = [values.real, values.imag] if self.phase else []
        if self.amplitude != self.phase:
            parts.append(values.abs())  # whose gradient at 0 is 0
        return Coordinates(torch.stack(parts, -1), multiplicity)


@dataclass(frozen=True)
class RadialSpectrum:
    r"""Logarithms of the radial power spectrum of each channel.

    .. math:: c_k = \ln(P_k + 0.1\, \bar P_k + 10^{-6}\, \bar P)

    P from `radial_power_spectrum`, corners included, with its means over the data, of the ring and of all rings; a ring
    counts as often as it has coefficients. The logarithm alone is steep where an image has little power by chance, most
    of all in rings of few coefficients; with the floor its slope is at most eleven times that at the data's mean. Ring
    0, the mean brightness, is left out: the denoising loss sees it best. A difference of 1 is 4.3 dB where P is well
    above the floor. Blind to phase, so never a loss of its own.

    Example:
        >>> images = torch.randn(2, 3, 8, 8)
        >>> RadialSpectrum().coordinates(images, torch.ones(3, 7)).values.shape
        torch.Size([2, 18, 1])
    """

    name: ClassVar[str] = "radial"
    components: ClassVar[tuple[Component, ...]] = (Component(1.0, power=True),)
    focal: ClassVar[int] = 0

    def coordinates(self, images: Float[Tensor, "b c *dims"], rings: Tensor | None) -> Coordinates:
        """The rings of every channel, channels outermost."""
        assert rings is not None
        spectrum = radial_power_spectrum(images.flatten(0, 1).unsqueeze(1), corners=True)
        power = spectrum.power[:, 1:].unflatten(0, images.shape[:2])
        mean = rings[:, 1:]
        floor = (_FLOOR * mean + _EMPTY * mean.mean()).to(power).clamp(min=torch.finfo(power.dtype).tiny)
        values = (power + floor).log()
        return Coordinates(values.flatten(1).unsqueeze(-1), spectrum.count[1:].expand(images.shape[1], -1).flatten())


@dataclass(frozen=True)
class BlockDCT:
    """Cosine transforms of blocks, as JPEG takes them; squared differences need no noise correction.

    See `block_dct`. With flat weights and sizes that divide the images this is the mean squared error again, but a band
    of tolerance, or another weight, then acts on each frequency.

    Args:
        size: Side of a block, along every axis.
        weights: "flat", or "jpeg": one over JPEG's luminance steps at quality 85, of blocks of 8 x 8 pixels, colours
            being turned into brightness and colour differences first. For pixels only: latents have no colours.

    Raises:
        ValueError: If the size is below 1, the weights are unknown, or are JPEG's with another size than 8.

    Example:
        >>> BlockDCT(weights="jpeg").coordinates(torch.zeros(2, 3, 16, 16), None).weight.shape
        torch.Size([768])
    """

    name: ClassVar[str] = "dct"
    components: ClassVar[tuple[Component, ...]] = (Component(1.0, power=False),)
    focal: ClassVar[int] = 0

    size: int = 8
    weights: Literal["flat", "jpeg"] = "flat"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is the side of a block in pixels: expected at least 1, got {self.size}")
        if self.weights not in ("flat", "jpeg"):
            raise ValueError(f"weights must be 'flat' or 'jpeg', got {self.weights!r}")
        if self.weights == "jpeg" and self.size != 8:
            raise ValueError(f"JPEG's weights are for blocks of 8 x 8, got size={self.size}; use weights='flat'")

    def coordinates(self, images: Float[Tensor, "b c *dims"], rings: Tensor | None) -> Coordinates:
        """The coefficients of every block.

        Raises:
            ValueError: If JPEG's weights are asked for and these are no pictures.
        """
        if self.weights == "flat":
            values = block_dct(images, self.size).flatten(1)
            return Coordinates(values.unsqueeze(-1), values.new_ones(values.shape[1]))
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"BlockDCT(weights='jpeg') is for pictures of 1 (grey) or 3 (colour) channels, got images of shape "
                f"{tuple(images.shape[1:])}; use weights='flat'"
            )
        values = block_dct(rgb_to_ycbcr(images) if images.shape[1] == 3 else images)
        weight = jpeg_weights().to(values).expand(values.shape[1:])
        return Coordinates(values.flatten(1).unsqueeze(-1), weight.flatten())


@dataclass(frozen=True)
class Wavelet:
    """Wavelet coefficients, through ptwt (`pip install 'lsdr[wavelets]'`); differences need no noise correction.

    Args:
        wavelet: Name of a discrete wavelet; see `wavelet_coefficients`.
        levels: How often the coarse part is split again.

    Raises:
        ValueError: If there is not one level at least.

    Example:
        >>> Wavelet("haar", levels=2).coordinates(torch.zeros(2, 3, 8, 8), None).values.shape
        torch.Size([2, 192, 1])
    """

    name: ClassVar[str] = "wavelet"
    components: ClassVar[tuple[Component, ...]] = (Component(1.0, power=False),)
    focal: ClassVar[int] = 0

    wavelet: str = "haar"
    levels: int = 2

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels must be at least 1, got {self.levels}")

    def coordinates(self, images: Float[Tensor, "b c *dims"], rings: Tensor | None) -> Coordinates:
        """All coefficients."""
        values = wavelet_coefficients(images, self.wavelet, self.levels)
        return Coordinates(values.unsqueeze(-1), values.new_ones(values.shape[1]))


Feature = AmplitudePhase | RadialSpectrum | BlockDCT | Wavelet
