"""Sensitivity of samplers whose Jacobian is known."""

import pytest
import torch

from lsdr.diffusion.euler import euler
from lsdr.diffusion.heun import heun
from lsdr.diffusion.measures.sensitivity import STEP, sensitivity
from lsdr.diffusion.sigmas import karras_sigmas


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count=3, side=4, dtype=torch.float64):
    return torch.randn(count, 1, side, side, dtype=dtype, generator=generator(1))


def test_a_linear_map_responds_by_its_root_mean_square_singular_value():
    stretch = torch.linspace(0.1, 2, 64, dtype=torch.float64).view(1, 8, 8)
    ratio = sensitivity(lambda z: stretch * z, noise(3000, 8), generator=generator())
    assert ratio.square().mean().item() == pytest.approx(stretch.square().mean().item(), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_sampler_of_a_gaussian_responds_by_its_standard_deviation(gaussian, dtype):
    denoiser = gaussian(torch.tensor(0.3, dtype=dtype), torch.tensor(0.25, dtype=dtype))
    sigmas = karras_sigmas(24, 0.002, 80.0).to(dtype)
    z = noise(dtype=dtype)
    # Euler on sigmas multiplies by g = rho + (1 - rho) lambda / (lambda + sigma^2), rho = sigma' / sigma.
    rho, spread = sigmas[1:] / sigmas[:-1], 0.25 / (0.25 + sigmas[:-1] ** 2)
    expected = float(80 * (rho + (1 - rho) * spread).double().prod())
    found = sensitivity(lambda z: euler(denoiser, z, sigmas), z, generator=generator())
    torch.testing.assert_close(
        found, torch.full_like(found, expected), rtol=1e-4 if dtype == torch.float32 else 1e-6, atol=0
    )
    sigmas = karras_sigmas(100, 0.002, 80.0)
    assert sensitivity(lambda z: heun(denoiser, z, sigmas), z).mean().item() == pytest.approx(0.5, rel=0.005)


def test_a_curved_map_responds_by_its_slope_where_it_is():
    z = noise()
    found = sensitivity(torch.sin, z, generator=generator())
    direction = torch.randn(z.shape, generator=generator(), dtype=torch.float64)
    expected = (z.cos() * direction).flatten(1).norm(dim=1) / direction.flatten(1).norm(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_a_collapsed_sampler_scores_zero():
    assert sensitivity(torch.zeros_like, noise()).max() == 0


def test_conditions_go_with_their_images():
    gains = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    found = sensitivity(lambda z, gain: gain.view(-1, 1, 1, 1) * z, noise(3), conditioning=gains)
    torch.testing.assert_close(found, gains)


def test_only_its_generator_is_drawn_from(tiny):
    before = torch.get_rng_state()
    first = sensitivity(lambda z: z.sin(), noise(), generator=generator())
    assert torch.equal(first, sensitivity(lambda z: z.sin(), noise(), generator=generator()))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, sensitivity(lambda z: z.sin(), noise(), generator=generator(5)))


def test_half_precision_takes_a_step_that_survives_rounding():
    z = noise(20, 8, torch.bfloat16)
    ratio = sensitivity(lambda z: 0.5 * z, z, generator=generator())
    assert ratio.mean().item() == pytest.approx(0.5, rel=0.02)
    assert set(STEP) == {torch.float64, torch.float32, torch.bfloat16, torch.float16}


def test_a_step_of_nothing_is_refused():
    with pytest.raises(ValueError, match="positive"):
        sensitivity(torch.sin, noise(), step=0.0)
