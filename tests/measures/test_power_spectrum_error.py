"""The power-spectrum error on sets whose spectra differ by a known number of decibels."""

import pytest
import torch

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum
from lsdr.measures.power_spectrum_error import power_spectrum_error


def data(count=20, side=24, seed=0):
    return torch.randn(count, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def amplify(images, decibels, low, high):
    """Multiply the power of rings between two frequencies."""
    side = images.shape[-1]
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None, :])
    ring = (frequency * side).round() / side
    gain = torch.where((ring > low) & (ring <= high), 10 ** (decibels / 20), 1.0)
    return torch.fft.irfft2(torch.fft.rfft2(images) * gain, s=images.shape[-2:])


def test_equal_sets_have_no_error():
    result = power_spectrum_error(data(), data())
    assert max(result.overall, result.low, result.mid, result.high) < 1e-12


@pytest.mark.parametrize(
    ("band", "low", "high"),
    [("low", 0.01, 1 / 6 + 1e-6), ("mid", 1 / 6 + 1e-6, 1 / 3 + 1e-6), ("high", 1 / 3 + 1e-6, 1)],
)
@pytest.mark.parametrize("decibels", [3.0, -6.0])
def test_an_amplified_band_shows_in_that_band_alone(band, low, high, decibels):
    result = power_spectrum_error(amplify(data(), decibels, low, high), data())
    for name in ("low", "mid", "high"):
        expected = abs(decibels) if name == band else 0.0
        assert getattr(result, name).item() == pytest.approx(expected, abs=1e-4)
    # 4 of the 12 frequencies of 24 pixels lie in each third.
    assert result.overall.item() == pytest.approx(abs(decibels) / 3**0.5, abs=1e-4)


def test_brightness_does_not_count():
    assert power_spectrum_error(data() + 3, data()).overall < 1e-6


def test_curves_are_the_spectra_and_their_quantiles():
    result = power_spectrum_error(data(seed=1), data())
    real = radial_power_spectrum(data()).power[:, 1:]
    assert result.frequency[0] == 1 / 24
    assert result.frequency[-1] == 0.5
    torch.testing.assert_close(result.data, real.mean(0))
    torch.testing.assert_close(result.samples, radial_power_spectrum(data(seed=1)).power[:, 1:].mean(0))
    # Of 20 sorted values, the 10% quantile lies between the second and the third.
    ordered = real.sort(0).values
    assert ((result.data_low >= ordered[1]) & (result.data_low <= ordered[2])).all()
    assert ((result.data_high >= ordered[17]) & (result.data_high <= ordered[18])).all()


def test_sampling_noise_falls_with_the_number_of_images():
    few = power_spectrum_error(data(10, seed=1), data(10, seed=2)).overall
    many = power_spectrum_error(data(1000, seed=1), data(1000, seed=2)).overall
    assert many < 0.3 < few * 3
    assert many < few / 3


def test_empty_frequencies_give_a_finite_error():
    flat = torch.zeros(4, 1, 8, 8)
    assert power_spectrum_error(flat, data(4, 8)[:, :1].float()).overall.isfinite()
    assert power_spectrum_error(data(4, 8)[:, :1].float(), flat).overall.isfinite()
    assert power_spectrum_error(flat, flat).overall == 0


def test_a_band_without_frequencies_is_nan():
    result = power_spectrum_error(data(side=4, seed=1), data(side=4))
    assert result.low.isnan()
    assert result.overall.isfinite()


def test_unlike_sets_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        power_spectrum_error(data(side=8), data(side=12))
    with pytest.raises(ValueError, match="0 samples"):
        power_spectrum_error(data()[:0], data())


def test_the_samples_band_is_that_of_the_samples():
    samples = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = power_spectrum_error(samples, torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    swapped = power_spectrum_error(samples[:20], samples)
    torch.testing.assert_close(result.samples_low, swapped.data_low)
    torch.testing.assert_close(result.samples_high, swapped.data_high)
