"""Samplers: arguments, labels, gradients and schedules. Their numbers are in test_gaussian.py."""

import pytest
import torch

from lsdr.diffusion.ddim import ddim
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.euler import euler
from lsdr.diffusion.heun import heun
from lsdr.diffusion.sigmas import ddpm_sigmas, flow_sigmas, karras_sigmas

SAMPLERS = [euler, heun, ddim]
TABLE = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_call_gets_the_labels_and_the_levels_in_order(sampler):
    labels, seen = torch.tensor([3, 1]), []

    def denoiser(x, sigma, conditioning):
        assert conditioning is labels
        assert sigma.shape == ()
        seen.append(float(sigma))
        return x / 2

    sampler(denoiser, torch.randn(2, 1, 4, 4), torch.tensor([4.0, 2.0, 1.0, 0.0]), labels)
    assert seen == ([4, 2, 2, 1, 1] if sampler is heun else [4, 2, 1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_to_zero_is_one_denoising(sampler):
    noise = torch.randn(2, 1, 4, 4)
    out = sampler(lambda x, sigma, labels: torch.tanh(x), noise, torch.tensor([80.0, 0.0]))
    torch.testing.assert_close(out, torch.tanh(80 * noise), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("levels", [[1.0], [1.0, 2.0], [1.0, 1.0, 0.0], [1.0, -0.5], [float("nan"), 0.0], []])
def test_levels_that_do_not_descend_are_refused(sampler, levels):
    with pytest.raises(ValueError, match="strictly descending"):
        sampler(lambda x, sigma, labels: x, torch.randn(1, 1, 2, 2), torch.tensor(levels))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_differentiable_and_repeatable(sampler):
    noise = torch.randn(2, 1, 4, 4, requires_grad=True)
    state, sigmas = torch.get_rng_state(), karras_sigmas(4, 0.1, 10.0)
    out = sampler(lambda x, sigma, labels: torch.tanh(x), noise, sigmas)
    out.sum().backward()
    assert noise.grad.abs().sum() > 0
    assert torch.equal(out, sampler(lambda x, sigma, labels: torch.tanh(x), noise, sigmas))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_half_precision_noise_is_integrated_in_float32(sampler):
    out = sampler(lambda x, sigma, labels: x / 2, torch.randn(1, 1, 2, 2).bfloat16(), karras_sigmas(3, 0.1, 10.0))
    assert out.dtype == torch.float32


def test_karras_levels():
    sigmas = karras_sigmas(18, 0.002, 80.0)
    assert sigmas.shape == (19,)
    assert sigmas[0] == 80
    assert sigmas[-1] == 0
    assert sigmas[-2] == pytest.approx(0.002, rel=1e-6)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    torch.testing.assert_close(sigmas[:-1], torch.tensor(expected))
    assert karras_sigmas(1, 0.002, 80.0).tolist() == [80, 0]


@pytest.mark.parametrize("n", [1, 3, 7, 10, 333, 999, 1000])
def test_table_levels_are_levels_of_the_table(n):
    denoiser = DDPMDenoiser(None, TABLE, "v")
    sigmas = ddpm_sigmas(denoiser, n)
    steps = denoiser.timestep(sigmas[:-1])
    assert torch.equal(steps, steps.round())
    assert steps[0] == 999
    assert len(set(steps.tolist())) == n
    assert (steps.diff() < 0).all()


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        karras_sigmas(0, 0.1, 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        flow_sigmas(0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        karras_sigmas(3, 1.0, 0.1)
    with pytest.raises(ValueError, match="table of 1000"):
        ddpm_sigmas(DDPMDenoiser(None, TABLE, "v"), 1001)
