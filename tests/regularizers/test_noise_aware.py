"""The data's spectrum, and what a best estimate's is under noise."""

import math

import pytest
import torch

from lsdr.regularizers._noise_aware import NoiseAware
from lsdr.regularizers._shares import Share


def whole(count):
    return Share(0, count, count, 1, True)


def gaussian(count, dims, generator, dtype=torch.float64):
    """Images of a known variance at each frequency about a mean image."""
    axes = tuple(range(-len(dims), 0))
    grid = [torch.fft.fftfreq(size, dtype=dtype) for size in dims[:-1]] + [torch.fft.rfftfreq(dims[-1], dtype=dtype)]
    radius = sum(part.square() for part in torch.meshgrid(*grid, indexing="ij")).sqrt()
    variance = 0.02 / (0.05 + radius) ** 2
    white = torch.randn(count, 2, *dims, generator=generator, dtype=dtype)
    mean = torch.linspace(-1, 1, math.prod(dims), dtype=dtype).reshape(dims)
    coefficients = variance.sqrt() * torch.fft.rfftn(white, dim=axes, norm="ortho")
    return mean + torch.fft.irfftn(coefficients, dim=axes, s=dims, norm="ortho"), variance


def power(images, mean):
    axes = tuple(range(2, images.ndim))
    return torch.fft.rfftn(images - mean, dim=axes, norm="ortho").abs().square().mean(0)


@pytest.mark.parametrize("dims", [(9,), (8,), (7, 6), (4, 5, 3)])
def test_target_has_the_power_of_the_best_linear_estimate(dims):
    images, variance = gaussian(4000, dims, torch.Generator().manual_seed(0))
    noise = NoiseAware("wiener", 4000)
    noise.update(images)
    assert not noise.ready
    noise.merge(whole(4000))
    assert noise.ready
    assert not noise.learning
    for sigma in (0.1, 1.0, 3.0):
        levels = torch.full((4000,), sigma, dtype=torch.float64)
        found = power(noise.target(images, levels), images.mean(0))
        expected = variance.square() / (variance + sigma**2)
        # 4000 images know a variance to 3.2 % (real coefficients) and the largest of ten times more frequencies worse.
        assert (found / expected - 1).abs().max() < 0.2
        assert (found.mean(0) / expected - 1).abs().mean() < 0.04


def test_limits_of_gate_and_target_are_exact():
    images = gaussian(64, (8, 8), torch.Generator().manual_seed(1), torch.float32)[0]
    noise = NoiseAware("wiener", 64)
    noise.update(images)
    noise.merge(whole(64))
    sigma = torch.tensor([0.0, 1.0, torch.inf])
    gate = noise.gate(sigma)
    variance = images.double().var(0).mean()
    torch.testing.assert_close(gate, torch.tensor([1.0, float(variance / (variance + 1)), 0.0]), rtol=1e-5, atol=0)
    assert gate[0] == 1
    assert gate[2] == 0
    target = noise.target(images[:3], sigma)
    torch.testing.assert_close(target[0], images[0])
    torch.testing.assert_close(target[2], images.double().mean(0).float())
    assert not torch.allclose(target[1], images[1], atol=0.1)


@pytest.mark.parametrize("mode", ["snr", "none"])
def test_without_correction_the_target_is_the_image(mode):
    images = torch.randn(20, 1, 6, 6)
    noise = NoiseAware(mode, 16)
    noise.update(images)
    noise.merge(whole(20))
    assert torch.equal(noise.target(images, torch.ones(20)), images)
    assert bool((noise.gate(torch.ones(20)) == 1).all()) == (mode == "none")


def test_statistics_do_not_depend_on_how_a_step_is_cut():
    images = torch.randn(24, 2, 7, 5, dtype=torch.float64) + 3
    one, cut = NoiseAware("wiener", 1000), NoiseAware("wiener", 1000)
    for step in images.split(12):
        one.update(step)
        one.merge(whole(12))
        for first, chunk in zip((0, 5), step.split([5, 7]), strict=True):
            cut.update(chunk)
            cut.merge(Share(first, len(chunk), 12, 1, last=first > 0))
    assert one.state_dict().keys() == cut.state_dict().keys()
    for key, value in one.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[key], value, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(one.variance(), images.var(0).sum() / 70)
    assert one.ready


def test_what_a_step_brings_waits_for_its_last_chunk_and_can_be_forgotten():
    noise = NoiseAware("wiener", 1000)
    noise.update(torch.randn(8, 1, 4, 4))
    noise.merge(Share(0, 8, 16, 1, last=False))
    assert not noise.state_dict()
    noise.forget()
    noise.merge(Share(8, 8, 16, 1, last=True))
    assert not noise.state_dict()


def test_learning_stops_and_the_state_is_bitwise():
    noise, other = NoiseAware("bracket", 20), NoiseAware("bracket", 20)
    for _ in range(2):
        noise.update(torch.randn(16, 1, 6, 6))
        noise.merge(whole(16))
    before = {key: value.clone() for key, value in noise.state_dict().items()}
    noise.update(torch.full((16, 1, 6, 6), 9.0))
    noise.merge(whole(16))
    assert all(torch.equal(noise.state_dict()[key], value) for key, value in before.items())
    other.update(torch.randn(16, 1, 6, 6))
    other.merge(whole(16))
    images = torch.randn(4, 1, 6, 6)
    assert not torch.equal(noise.target(images, torch.ones(4)), other.target(images, torch.ones(4)))
    other.load_state_dict(before)
    assert torch.equal(noise.target(images, torch.ones(4)), other.target(images, torch.ones(4)))
    other.load_state_dict({})
    assert not other.ready
    assert other.learning


def test_half_precision_is_raised_and_constant_channels_stay():
    images = torch.randn(32, 2, 6, 6)
    images[:, 1] = 0.7
    noise = NoiseAware("wiener", 32)
    noise.update(images.bfloat16())
    noise.merge(whole(32))
    target = noise.target(images.bfloat16(), torch.full((32,), 0.5))
    assert target.dtype == torch.float32
    torch.testing.assert_close(target[:, 1], torch.full((32, 6, 6), 0.7).bfloat16().float())


def test_constant_and_other_sized_images_are_refused():
    noise = NoiseAware("wiener", 100)
    noise.update(torch.ones(16, 1, 6, 6) * torch.arange(16.0).view(-1, 1, 1, 1))
    with pytest.raises(ValueError, match="all 16 clean images of this step are constant"):
        noise.merge(whole(16))
    noise = NoiseAware("wiener", 100)
    noise.update(torch.randn(16, 1, 6, 6))
    noise.merge(whole(16))
    with pytest.raises(ValueError, match=r"measured on images of shape \(1, 6, 6\), and now \(1, 6, 8\) came"):
        noise.target(torch.randn(4, 1, 6, 8), torch.ones(4))
    with pytest.raises(ValueError, match="must have one size"):
        noise.update(torch.randn(4, 1, 6, 8))


def test_an_image_that_is_not_finite_is_left_out():
    images = torch.randn(20, 1, 6, 6)
    good, bad = NoiseAware("wiener", 100), NoiseAware("wiener", 100)
    good.update(images[:19])
    images[19, 0, 2, 3] = torch.nan
    bad.update(images)
    for noise in (good, bad):
        noise.merge(whole(20))
    assert all(torch.equal(value, bad.state_dict()[key]) for key, value in good.state_dict().items())
    assert bad.state_dict()["count"] == 19
