"""How far the power spectrum of samples lies from the data's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum

_FLOOR = 1e-10


@dataclass(frozen=True)
class PowerSpectrumError:
    """Root mean square error of the log power spectrum in decibels, and the spectra it comes from."""

    overall: Float[Tensor, ""]
    low: Float[Tensor, ""]
    mid: Float[Tensor, ""]
    high: Float[Tensor, ""]
    frequency: Float[Tensor, "bins"]
    """Cycles per pixel, from the first frequency above zero to Nyquist."""
    samples: Float[Tensor, "bins"]
    """Mean power of the samples."""
    data: Float[Tensor, "bins"]
    """Mean power of the data."""
    data_low: Float[Tensor, "bins"]
    """Power that one data image in ten stays below."""
    data_high: Float[Tensor, "bins"]
    """Power that one data image in ten exceeds."""
    samples_low: Float[Tensor, "bins"]
    """Power that one sample in ten stays below."""
    samples_high: Float[Tensor, "bins"]
    """Power that one sample in ten exceeds."""


@torch.no_grad()
def power_spectrum_error(samples: Float[Tensor, "n c h w"], data: Float[Tensor, "m _ _ _"]) -> PowerSpectrumError:
    r"""Root mean square error of the log radial power spectrum, overall and by frequency band.

    .. math::
        e_k = 10 \log_{10} \frac{\bar P^{samples}_k}{\bar P^{data}_k}, \qquad
        \mathrm{RMSE} = \sqrt{\frac{1}{|B|} \sum_{k \in B} e_k^2}

    in decibels (10 dB = ten times the power), with :math:`\bar P` the radial power spectrum averaged over images. The
    bands are thirds of the frequencies up to Nyquist: up to 1/6, up to 1/3 and up to 1/2 cycle per pixel; the mean
    brightness (frequency zero) and the diagonal corners beyond Nyquist are left out. 0 for equal spectra; k dB for
    samples with k dB more power everywhere; unchanged by shifts and by scaling both sets. Power below 1e-10 of the
    data's mean counts as that, so that an empty frequency gives a finite error. Two halves of real data do not score 0
    either: with n images a ring of r coefficients carries about 6 / sqrt(n r / 2) dB or more of sampling noise. A band
    without a frequency (images narrower than 6 pixels) is nan. Cost: one FFT per image.

    Source: that diffusion models miss the high frequencies is from arXiv 2210.14571; the measure is ours.

    Args:
        samples: Generated images.
        data: Real images of the same size.

    Returns:
        Errors in dB and the spectra.

    Raises:
        ValueError: If the images differ in size, or one set is empty.

    Example:
        >>> data = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> round(float(power_spectrum_error(10 * data, data).overall), 3)
        20.0
    """
    if samples.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"samples and data must have the same shape, got {tuple(samples.shape[1:])} and {tuple(data.shape[1:])}"
        )
    if len(samples) == 0 or len(data) == 0:
        raise ValueError(f"need samples and data, got {len(samples)} samples and {len(data)} images")
    real = radial_power_spectrum(data)
    per_sample, per_image = radial_power_spectrum(samples).power[:, 1:], real.power[:, 1:]
    power = per_sample.mean(0)
    mean = per_image.mean(0)
    floor = _FLOOR * mean.mean().clamp_min(torch.finfo(mean.dtype).tiny / _FLOOR)
    squared = (10 * (power.clamp_min(floor).log10() - mean.clamp_min(floor).log10())).square()
    # In integers, so that 1/6 and 1/3 cycle per pixel fall on the same side for every size.
    index, side = torch.arange(1, len(mean) + 1, device=mean.device), max(data.shape[-2:])
    low, mid = 6 * index <= side, 3 * index <= side
    return PowerSpectrumError(
        overall=squared.mean().sqrt(),
        low=squared[low].mean().sqrt(),
        mid=squared[mid & ~low].mean().sqrt(),
        high=squared[~mid].mean().sqrt(),
        frequency=real.frequency[1:],
        samples=power,
        data=mean,
        data_low=per_image.quantile(0.1, dim=0),
        data_high=per_image.quantile(0.9, dim=0),
        samples_low=per_sample.quantile(0.1, dim=0),
        samples_high=per_sample.quantile(0.9, dim=0),
    )
