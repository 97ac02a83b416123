"""Radial power spectrum of images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class RadialPowerSpectrum:
    """Power by spatial frequency; bin 0 is the mean (frequency zero) alone."""

    frequency: Float[Tensor, "bins"]
    """Centre of each ring, in cycles per pixel."""
    power: Float[Tensor, "n bins"]
    """Mean power of one 2-D coefficient in each ring, per image, averaged over channels."""
    count: Float[Tensor, "bins"]
    """2-D coefficients in each ring."""


def radial_power_spectrum(images: Float[Tensor, "n c h w"], *, corners: bool = False) -> RadialPowerSpectrum:
    r"""Azimuthally averaged power spectrum of each image; differentiable.

    .. math::
        F = \mathrm{FFT}_2(x) / \sqrt{HW}, \qquad
        P_k = \frac{1}{|R_k|} \sum_{(u,v) \in R_k} |F_{uv}|^2, \qquad
        R_k = \{(u,v) : \mathrm{round}(M \sqrt{u^2 + v^2}) = k\}, \quad M = \max(H, W)

    with u, v in cycles per pixel. Rings are 1/M wide, centred at k/M for k = 0 ... floor(M/2), so none is empty and
    ring 0 holds the mean and nothing else. Diagonal frequencies beyond the last ring are left out, or, with `corners`,
    kept in rings of their own; then :math:`\sum_k |R_k| P_k = \sum x^2` (Parseval). White noise of variance s^2 has
    P = s^2 in every ring. Invariant to circular shifts, and on square images to flips and turns by 90 degrees. Half
    and bfloat16 images are computed in float32. Cost: one real FFT per channel.

    Source: the azimuthal average of Durall et al., arXiv 2003.01826, whose published code detaches it from the graph;
    here gradients flow, and images keep their own scale. Images are not windowed: a jump between opposite borders adds
    power that falls like 1/f^2, to every compared set alike.

    Args:
        images: Real images, any height and width, with at least two pixels on the longer side.
        corners: Also return the rings beyond 1/2 cycle per pixel.

    Returns:
        Frequencies, power per image and the number of coefficients, per ring.

    Raises:
        ValueError: If there is no frequency but zero.

    Example:
        >>> stripes = torch.cos(2 * torch.pi * torch.arange(16) / 4).expand(1, 1, 16, 16)
        >>> spectrum = radial_power_spectrum(stripes)
        >>> round(float(spectrum.frequency[spectrum.power[0].argmax()]), 3)
        0.25
    """
    height, width = images.shape[-2:]
    if max(height, width) < 2:
        raise ValueError(f"a spectrum needs at least 2 pixels on the longer side, got images of {height}x{width}")
    if images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()
    with torch.autocast(device_type=images.device.type, enabled=False):
        coefficients = torch.fft.rfft2(images, norm="ortho")
    squared = (coefficients.real.square() + coefficients.imag.square()).mean(1)
    ring, weight = _rings(height, width)
    ring, weight = ring.to(images.device), weight.to(images)
    bins = int(ring.max()) + 1
    count = weight.new_zeros(bins).index_add(0, ring, weight)
    total = squared.new_zeros(len(images), bins).index_add(1, ring, squared.flatten(1) * weight)
    kept = bins if corners else max(height, width) // 2 + 1
    frequency = torch.arange(kept, device=images.device, dtype=count.dtype) / max(height, width)
    return RadialPowerSpectrum(frequency, (total / count)[:, :kept], count[:kept])


def _rings(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The ring of every coefficient of a real FFT, and how often it stands in the full one."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64)
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)
    ring = (max(height, width) * torch.hypot(rows[:, None], columns[None, :])).round().long()
    # A real FFT leaves out the mirror image of every column but the first and, for even widths, the last.
    multiplicity = torch.full((height, len(columns)), 2.0, dtype=torch.float64)
    multiplicity[:, 0] = 1
    if width % 2 == 0:
        multiplicity[:, -1] = 1
    return ring.flatten(), multiplicity.flatten()
