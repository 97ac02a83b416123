"""Formulas of the step against autograd on the real denoisers and samplers, and against Gaussian data."""

import inspect
import math

import pytest
import torch

from lsdr.diffusion.ddim import ddim
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.euler import euler
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.probes.denoising_step import (
    denoiser_eigenvalue,
    discrete_time_scale,
    frame_factor,
    step_gain,
    time_scale,
)

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
NU = torch.tensor([-2.0, -0.3, 0.0, 0.7, 1.5], dtype=torch.float64)


def network(x, t):
    """Pixel i is multiplied by NU[i]: its Jacobian's eigenvalues are known."""
    return x * NU.view(1, 1, 1, -1)


def derivative(function, sigma):
    x = torch.linspace(-1, 1, 5, dtype=torch.float64).view(1, 1, 1, 5)
    level = torch.tensor(sigma, dtype=torch.float64)
    return torch.autograd.functional.jacobian(lambda y: function(y, level).flatten(), x).view(5, 5)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 12.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow", "edm"])
def test_eigenvalues_of_the_real_denoisers(prediction, sigma):
    if prediction == "edm":
        denoiser = EDMDenoiser(network, sigma_data=0.7)
    elif prediction == "flow":
        denoiser = FlowDenoiser(network)
    else:
        denoiser = DDPMDenoiser(network, ALPHAS, prediction)
    mu = denoiser_eigenvalue(NU, sigma, prediction, sigma_data=0.7)
    torch.testing.assert_close(derivative(denoiser, sigma), torch.diag(mu), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", [euler, ddim])
@pytest.mark.parametrize("after", [0.0, 0.4, 1.9])
def test_gain_of_the_real_samplers(sampler, after):
    """A sampler starts from unit noise times sigma, so its derivative over sigma is the chain of steps."""
    denoiser = EDMDenoiser(network)
    mu = denoiser_eigenvalue(NU, 2.0, "edm")
    sigmas = torch.tensor([2.0, after], dtype=torch.float64)
    found = derivative(lambda x, _: sampler(denoiser, x, sigmas), 2.0) / 2
    torch.testing.assert_close(found, torch.diag(step_gain(mu, 2.0, after)), rtol=1e-10, atol=1e-10)


def test_gain_in_the_preserving_frame_is_that_of_ddim():
    """Song, Meng & Ermon 2021, eq. 12, for the derivative of the noise prediction."""
    abar, after = ALPHAS[600], ALPHAS[500]
    sigma, sigma_next = (((1 - each) / each).sqrt() for each in (abar, after))
    expected = (after / abar).sqrt() + ((1 - after).sqrt() - (after * (1 - abar) / abar).sqrt()) * NU
    mu = denoiser_eigenvalue(NU, sigma, "epsilon")
    torch.testing.assert_close(step_gain(mu, sigma, sigma_next, "preserving"), expected)


def test_gain_in_the_flow_frame_is_eulers():
    """x_t' = x_t + (t' - t) u(x_t)."""
    t, after = torch.tensor([0.8, 0.5], dtype=torch.float64)
    expected = 1 + (after - t) * NU
    mu = denoiser_eigenvalue(NU, t / (1 - t), "flow")
    torch.testing.assert_close(step_gain(mu, t / (1 - t), after / (1 - after), "flow"), expected)


def test_the_optimum_of_gaussian_data():
    lam, sigma, after = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64), 2.0, 1.5
    mu = lam / (lam + sigma**2)
    rho = after / sigma
    torch.testing.assert_close(step_gain(mu, sigma, after), 1 + (rho - 1) * sigma**2 / (lam + sigma**2))
    assert step_gain(mu, sigma, after, "preserving").max() > 1  # images grow as noise goes, in this frame
    torch.testing.assert_close(time_scale(mu), 1 + lam / sigma**2)


def test_time_scales_of_small_steps_agree():
    mu = torch.tensor([-0.5, 0.0, 0.9, 1.2], dtype=torch.float64)
    step = 1e-4
    gain = step_gain(mu, 1.0, math.exp(-step))
    torch.testing.assert_close(discrete_time_scale(gain, step), time_scale(mu), rtol=1e-3, atol=0)


def test_ends_of_the_scales():
    assert time_scale(1.0) == math.inf
    assert time_scale(1.5) == -2
    assert discrete_time_scale(1.0) == math.inf
    assert discrete_time_scale(0.0) == 0
    assert discrete_time_scale(math.e, 2.0) == -2
    assert math.isnan(discrete_time_scale(-0.1))


def test_types_and_shapes():
    assert step_gain(torch.zeros(3, dtype=torch.float32), 1.0, 0.5).dtype == torch.float32
    sigma = torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None]
    assert step_gain(NU, sigma, sigma / 2).shape == (2, 5)
    assert frame_factor(torch.tensor([0.0, 1.0]), "preserving").tolist() == pytest.approx([1, 2**-0.5])
    assert frame_factor(torch.tensor([3.0]), "flow").tolist() == [0.25]
    assert frame_factor(7.0).item() == 1


@pytest.mark.parametrize(
    ("sigma", "after"),
    [(0.0, 0.0), (-1.0, -2.0), (math.nan, 0.0), (math.inf, 1.0), (1.0, 1.0), (1.0, -0.1), (1.0, math.nan)],
)
def test_no_such_step(sigma, after):
    with pytest.raises(ValueError, match="sigma"):
        step_gain(0.5, sigma, after)


def test_unknown_words():
    with pytest.raises(ValueError, match="'exploding', 'preserving' or 'flow'"):
        inspect.unwrap(frame_factor)(1.0, "cosine")
    with pytest.raises(ValueError, match="'epsilon', 'v', 'sample', 'flow' or 'edm'"):
        inspect.unwrap(denoiser_eigenvalue)(1.0, 1.0, "score")


@pytest.mark.parametrize(("sigma", "sigma_data"), [(-1.0, 0.5), (math.nan, 0.5), (1.0, 0.0), (1.0, math.nan)])
def test_no_such_denoiser(sigma, sigma_data):
    with pytest.raises(ValueError, match="sigma_data > 0"):
        denoiser_eigenvalue(0.5, sigma, "edm", sigma_data=sigma_data)
