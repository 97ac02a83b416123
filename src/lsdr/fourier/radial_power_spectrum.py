"""Radial power spectrum of images."""

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsdr.fourier._real_fft import multiplicity, real_fft


@dataclass(frozen=True)
class RadialPowerSpectrum:
    """Power by spatial frequency; bin 0 is the mean (frequency zero) alone."""

    frequency: Float[Tensor, "bins"]
    """Centre of each ring, in cycles per pixel."""
    power: Float[Tensor, "n bins"]
    """Mean power of one coefficient in each ring, per image, averaged over channels."""
    count: Float[Tensor, "bins"]
    """Coefficients in each ring."""


def radial_power_spectrum(images: Float[Tensor, "n c *dims"], *, corners: bool = False) -> RadialPowerSpectrum:
    r"""Azimuthally averaged power spectrum of each image; differentiable.

    .. math::
        F = \mathrm{FFT}(x) / \sqrt{\textstyle\prod_i N_i}, \qquad
        P_k = \frac{1}{|R_k|} \sum_{u \in R_k} |F_u|^2, \qquad
        R_k = \{u : \mathrm{round}(M \lVert u \rVert) = k\}, \quad M = \max_i N_i

    with the frequency u in cycles per pixel along each axis. For images (two axes) the R_k are rings, for video and
    volumes (three) shells, for audio (one) the pair of frequencies k/M and -k/M. They are 1/M wide, centred at k/M for
    k = 0 ... floor(M/2), so none is empty and ring 0 holds the mean and nothing else. Diagonal frequencies beyond the
    last ring are left out, or, with `corners`, kept in rings of their own; then :math:`\sum_k |R_k| P_k = \sum x^2`
    (Parseval). White noise of variance s^2 has P = s^2 in every ring. Invariant to circular shifts, and on square
    images to flips and turns by 90 degrees. Half and bfloat16 images are computed in float32. Cost: one real FFT per
    channel.

    Source: the azimuthal average of Durall et al., arXiv 2003.01826, whose published code detaches it from the graph;
    here gradients flow, and images keep their own scale. Images are not windowed: a jump between opposite borders adds
    power that falls like 1/f^2, to every compared set alike.

    Args:
        images: Real audio, images, video or volumes of any size, with at least two pixels on the longest axis. Time
            counts as an axis like the others: a frame is a pixel.
        corners: Also return the rings beyond 1/2 cycle per pixel.

    Returns:
        Frequencies, power per image and the number of coefficients, per ring.

    Raises:
        TypeError: If the images are not real floating-point numbers.
        ValueError: If there is no frequency but zero, or not one to three axes.

    Example:
        >>> stripes = torch.cos(2 * torch.pi * torch.arange(16) / 4).expand(1, 1, 16, 16)
        >>> spectrum = radial_power_spectrum(stripes)
        >>> round(float(spectrum.frequency[spectrum.power[0].argmax()]), 3)
        0.25
    """
    dims = tuple(images.shape[2:])
    if dims and max(dims) < 2:
        size = "x".join(map(str, dims))
        raise ValueError(f"a spectrum needs at least 2 pixels on the longest axis, got images of {size}")
    coefficients = real_fft(images)
    power, count = ring_mean((coefficients.real.square() + coefficients.imag.square()).mean(1), dims)
    kept = len(count) if corners else max(dims) // 2 + 1
    frequency = torch.arange(kept, device=images.device, dtype=count.dtype) / max(dims)
    return RadialPowerSpectrum(frequency, power[:, :kept], count[:kept])


def ring_mean(
    power: Float[Tensor, "n *frequencies"], dims: tuple[int, ...]
) -> tuple[Float[Tensor, "n rings"], Float[Tensor, "rings"]]:
    """Mean of what a real FFT has in each ring, corners included, and how many coefficients each ring has.

    Args:
        power: A number for every coefficient of the real FFT of an image.
        dims: Size of the image.
    """
    ring, weight = _rings(dims)
    power = power.flatten(1)
    ring, weight = ring.to(power.device), weight.to(power)
    rings = int(ring.max()) + 1
    count = weight.new_zeros(rings).index_add(0, ring, weight)
    return power.new_zeros(len(power), rings).index_add(1, ring, power * weight) / count, count


def _rings(dims: tuple[int, ...]) -> tuple[Int[Tensor, "m"], Float[Tensor, "m"]]:
    """The ring of every coefficient of a real FFT, and how often it stands in the full one."""
    axes = [torch.fft.fftfreq(size, dtype=torch.float64) for size in dims[:-1]]
    axes.append(torch.fft.rfftfreq(dims[-1], dtype=torch.float64))
    radius = reduce(torch.hypot, torch.meshgrid(*axes, indexing="ij")).abs()
    return (max(dims) * radius).round().long().flatten(), multiplicity(dims).flatten()
