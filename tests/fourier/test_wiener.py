"""The Wiener filter on fields of known spectrum: the error and the power that theory gives."""

import pytest
import torch

from lsdr.fourier.wiener import filtered, wiener_gain

SIZES = [(16,), (9,), (6, 6), (5, 7), (3, 4, 5)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spectrum(dims):
    """Power that falls with frequency, in the shape of a real FFT."""
    axes = [torch.fft.fftfreq(n).double() for n in dims[:-1]] + [torch.fft.rfftfreq(dims[-1]).double()]
    squared = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
    return 1 / (0.01 + squared)


def field(count, dims, seed=0):
    noise = torch.randn(count, 1, *dims, dtype=torch.float64, generator=generator(seed))
    return filtered(noise, spectrum(dims).sqrt(), torch.zeros((), dtype=torch.float64))


def power(images):
    return torch.fft.rfftn(images, dim=tuple(range(2, images.ndim)), norm="ortho").abs().square().mean((0, 1))


@pytest.mark.parametrize("dims", SIZES)
def test_the_best_linear_estimate_has_the_error_and_the_power_of_theory(dims):
    count, sigma = 4000, 3.0
    S, mean = spectrum(dims), torch.tensor(2.0, dtype=torch.float64)
    clean = mean + field(count, dims)
    noisy = clean + sigma * torch.randn(clean.shape, dtype=torch.float64, generator=generator(1))
    gain = wiener_gain(S, torch.tensor(sigma, dtype=torch.float64))
    estimate = filtered(noisy, gain, mean)
    # Mean squared error per frequency S sigma^2 / (S + sigma^2); power of the estimate S^2 / (S + sigma^2)
    torch.testing.assert_close(power(estimate - clean), S * sigma**2 / (S + sigma**2), rtol=0.15, atol=0)
    torch.testing.assert_close(power(estimate - mean), S * gain, rtol=0.15, atol=0)
    target = filtered(clean, gain.sqrt(), mean)
    torch.testing.assert_close(power(target - mean), S * gain, rtol=0.15, atol=0)


@pytest.mark.parametrize("dims", SIZES)
def test_gain_one_is_the_image_and_gain_zero_the_mean(dims):
    images = torch.randn(2, 3, *dims, dtype=torch.float64, generator=generator())
    mean = images.mean(0)
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(filtered(images, one, mean), images)
    assert torch.equal(filtered(images, 0 * one, mean), mean.expand_as(images))


def test_gains_are_per_example_channel_and_frequency():
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator())
    gain = torch.rand(2, 3, 4, 3, dtype=torch.float64, generator=generator(1))
    gain[:, :, 1:, 0] += gain[:, :, 1:, 0].flip(2)  # a real filter is symmetric
    zero = torch.zeros((), dtype=torch.float64)
    found = torch.fft.rfft2(filtered(images, gain, zero))
    torch.testing.assert_close(found, gain * torch.fft.rfft2(images))


def test_gains_at_their_limits():
    variance = torch.tensor([0.0, 1e-30, 2.0, 1e30, torch.inf, -1e-9])
    sigma = torch.tensor([0.0, 1.0, 1e19, torch.inf])
    found = wiener_gain(variance, sigma)
    assert found.shape == (4, 6)
    assert found[0].tolist() == [0, 1, 1, 1, 1, 0]
    assert found[1].tolist() == pytest.approx([0, 1e-30, 2 / 3, 1, 1, 0])
    assert found[2, :3].abs().max() < 1e-37
    assert found[3, :4].tolist() == [0, 0, 0, 0]


def test_the_gain_has_the_shape_of_sigma_then_of_the_variance():
    assert wiener_gain(torch.ones(3, 4, 3), torch.ones(2)).shape == (2, 3, 4, 3)
    assert wiener_gain(torch.ones(3, 4, 3), torch.ones(())).shape == (3, 4, 3)
    assert wiener_gain(torch.ones(()), torch.ones(2)).shape == (2,)
    assert wiener_gain(torch.tensor(3.0), torch.tensor([1.0, 3.0])).tolist() == pytest.approx([0.75, 0.25])


def test_missing_numbers_stay_missing():
    assert wiener_gain(torch.tensor([1.0, torch.nan]), torch.tensor(1.0)).isnan().tolist() == [False, True]
    assert wiener_gain(torch.tensor(1.0), torch.tensor([1.0, torch.nan])).isnan().tolist() == [False, True]


def test_gradients_match_finite_differences():
    images = torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=generator()).requires_grad_()
    variance = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
    sigma = torch.tensor([1.0, 0.3], dtype=torch.float64, requires_grad=True)

    def loss(images, sigma):
        return filtered(images, wiener_gain(variance, sigma)[:, None, None], torch.ones((), dtype=torch.float64))

    assert torch.autograd.gradcheck(loss, (images, sigma))


def test_half_precision_is_computed_in_float32_also_under_autocast():
    images = torch.randn(2, 1, 8, 8, generator=generator()).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = filtered(images, torch.tensor(0.5), torch.tensor(0.0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images.float() / 2)


def test_statistics_in_float64_leave_float32_images_in_float32():
    images, double = torch.ones(1, 1, 4), torch.ones(1, dtype=torch.float64)  # 0-d tensors promote nothing
    assert filtered(images, double, double).dtype == torch.float32
    assert filtered(images.double(), double.float(), double.float()).dtype == torch.float64


def test_gains_and_means_that_do_not_fit():
    images, one = torch.ones(2, 3, 4, 5), torch.ones(())
    for gain, mean in ((torch.ones(4, 5), one), (torch.ones(1, 2, 3, 4, 3), one), (one, torch.ones(2, 1, 1, 1, 1))):
        with pytest.raises(ValueError, match=r"broadcasts to \(2, 3, 4, 3\), the shape of their rfftn"):
            filtered(images, gain, mean)
