"""The radial power spectrum against fields whose spectrum is known."""

import math

import pytest
import torch

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum

SIZES = [(8, 8), (7, 7), (7, 9), (8, 32), (9, 4), (1, 16), (16, 1), (2, 2), (3, 32)]
SIZES += [(16,), (9,), (2,), (4, 4, 4), (5, 4, 7), (1, 6, 5), (3, 8, 2)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", SIZES)
def test_the_rings_hold_all_power_once(size):
    images = torch.randn(3, 2, *size, dtype=torch.float64, generator=generator())
    spectrum = radial_power_spectrum(images, corners=True)
    assert spectrum.count.sum() == math.prod(size)
    total = (spectrum.power * spectrum.count).sum(1)
    torch.testing.assert_close(total, images.square().flatten(2).sum(2).mean(1))


@pytest.mark.parametrize("size", SIZES)
def test_no_ring_is_empty_and_frequencies_end_at_nyquist(size):
    spectrum = radial_power_spectrum(torch.ones(1, 1, *size, dtype=torch.float64))
    side = max(size)
    assert (spectrum.count > 0).all()
    assert spectrum.frequency.tolist() == [k / side for k in range(side // 2 + 1)]


def test_the_mean_is_alone_in_the_first_ring():
    image = torch.randn(1, 1, 8, 32, dtype=torch.float64, generator=generator())
    image -= image.mean()
    plain, shifted = radial_power_spectrum(image), radial_power_spectrum(image + 5)
    assert plain.count[0] == 1
    assert shifted.power[0, 0].item() == pytest.approx(25 * 8 * 32)
    torch.testing.assert_close(plain.power[:, 1:], shifted.power[:, 1:])


def test_white_noise_is_flat_at_its_variance():
    noise = 3 * torch.randn(400, 1, 16, 16, dtype=torch.float64, generator=generator())
    spectrum = radial_power_spectrum(noise, corners=True)
    # Power of n images x r coefficients, of which half are independent, has relative error about sqrt(2 / (n r)).
    error = 4 * 9 * (2 / (400 * spectrum.count)).sqrt()
    assert ((spectrum.power.mean(0) - 9).abs() < error).all()


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_a_power_law_field_has_its_slope(beta):
    side = 64
    frequency = torch.hypot(torch.fft.fftfreq(side).double()[:, None], torch.fft.rfftfreq(side).double()[None, :])
    amplitude = torch.where(frequency > 0, frequency, torch.inf) ** (-beta / 2)
    noise = torch.randn(200, 1, side, side, dtype=torch.float64, generator=generator())
    field = torch.fft.irfft2(torch.fft.rfft2(noise, norm="ortho") * amplitude, s=(side, side), norm="ortho")
    spectrum = radial_power_spectrum(field)
    x, y = spectrum.frequency[3:].log(), spectrum.power.mean(0)[3:].log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-beta, abs=0.05)


@pytest.mark.parametrize(("down", "across", "ring"), [(0, 3, 3), (5, 0, 5), (3, 4, 5), (1, 1, 1), (2, 2, 3)])
def test_a_sinusoid_is_in_its_ring_alone(down, across, ring):
    side = 20
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    wave = torch.cos(2 * torch.pi * (down * rows + across * columns).double() / side)
    spectrum = radial_power_spectrum(wave[None, None])
    total = spectrum.power[0] * spectrum.count
    assert total[ring].item() == pytest.approx(side**2 / 2)
    assert total.sum().item() == pytest.approx(total[ring].item())


def test_the_diagonal_corner_is_left_out_unless_asked_for():
    checkerboard = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)[None, :])
    assert radial_power_spectrum(checkerboard[None, None]).power.abs().max() < 1e-10
    assert radial_power_spectrum(checkerboard[None, None], corners=True).power.max() > 1


def test_circular_shifts_flips_and_quarter_turns_change_nothing():
    image = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=generator())
    expected = radial_power_spectrum(image).power
    for changed in (image.roll((2, 5), (2, 3)), image.flip(3), image.rot90(1, (2, 3))):
        torch.testing.assert_close(radial_power_spectrum(changed).power, expected)


def test_of_audio_each_ring_is_a_pair_of_frequencies():
    sound = torch.randn(2, 3, 9, dtype=torch.float64, generator=generator())
    spectrum = radial_power_spectrum(sound)
    torch.testing.assert_close(spectrum.power, torch.fft.rfft(sound, norm="ortho").abs().square().mean(1))
    assert spectrum.count.tolist() == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(("size", "wave", "ring"), [((12, 12, 12), (2, 1, 2), 3), ((4, 8, 16), (1, 0, 3), 5)])
def test_a_wave_of_a_volume_is_in_its_shell_alone(size, wave, ring):
    axes = torch.meshgrid(*[torch.arange(n).double() / n for n in size], indexing="ij")
    volume = torch.cos(2 * torch.pi * sum(k * axis for k, axis in zip(wave, axes, strict=True)))
    spectrum = radial_power_spectrum(volume[None, None])
    total = (spectrum.power * spectrum.count)[0]
    assert total[ring].item() == pytest.approx(math.prod(size) / 2)
    assert total.sum().item() == pytest.approx(total[ring].item())


def test_power_is_per_image():
    images = torch.randn(4, 1, 8, 8, generator=generator())
    torch.testing.assert_close(radial_power_spectrum(images).power[2:3], radial_power_spectrum(images[2:3]).power)


@pytest.mark.parametrize("size", [(5, 6), (4, 4), (7,), (3, 2, 4)])
@pytest.mark.parametrize("corners", [False, True])
def test_gradients_match_finite_differences(size, corners):
    images = torch.randn(2, 2, *size, dtype=torch.float64, generator=generator()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: radial_power_spectrum(x, corners=corners).power, (images,))
    (gradient,) = torch.autograd.grad(radial_power_spectrum(images).power[:, 1:].sum(), images)
    assert (gradient.flatten(1).abs().amax(1) > 1e-3).all()


def test_gradients_exist_after_a_call_in_inference_mode():
    with torch.inference_mode():
        radial_power_spectrum(torch.ones(1, 1, 6, 10))
    images = torch.randn(1, 1, 6, 10, generator=generator()).requires_grad_()
    radial_power_spectrum(images).power.sum().backward()
    assert images.grad.abs().max() > 0


def test_half_precision_is_computed_in_float32_also_under_autocast():
    images = torch.randn(2, 1, 8, 8, generator=generator()).bfloat16()
    expected = radial_power_spectrum(images.float()).power
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = radial_power_spectrum(images).power
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_one_pixel_has_no_spectrum():
    with pytest.raises(ValueError, match="1x1"):
        radial_power_spectrum(torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("shape", [(2, 3), (1, 1, 2, 2, 2, 2)])
def test_what_has_not_one_to_three_axes_is_refused(shape):
    with pytest.raises(ValueError, match="1 to 3 further axes"):
        radial_power_spectrum(torch.ones(shape))
