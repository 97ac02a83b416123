"""Adapters and samplers on Gaussian data, where everything is known.

For x0 ~ N(0, lam) the optimal denoiser is D = lam / (lam + sigma^2) x, the Euler step multiplies by
1 + (rho - 1) sigma^2 / (lam + sigma^2) with rho = sigma' / sigma, and the exact flow by
sqrt((lam + sigma'^2) / (lam + sigma^2)). The networks below predict exactly what an optimal network would.
"""

import math
from itertools import pairwise

import pytest
import torch

from lsdr.diffusion.ddim import ddim
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.euler import euler
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.heun import heun
from lsdr.diffusion.loss import denoising_loss
from lsdr.diffusion.sigmas import ddpm_sigmas, flow_sigmas, karras_sigmas
from lsdr.diffusion.weighting import min_snr_weight

LAM = 0.3
ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
ZERO_SNR = torch.cat([ALPHAS[:-1], torch.zeros(1, dtype=torch.float64)])


def column(values, like):
    return values.reshape(-1, *[1] * (like.ndim - 1))


def optimal(x, sigma, conditioning=None):
    return LAM / (LAM + column(sigma, x) ** 2) * x


def edm(sigma_data=0.5):
    def network(x_in, c_noise):  # Karras et al. 2022, eq. 8 solved for F, c_* from Table 1 as printed
        sigma = column(torch.exp(4 * c_noise), x_in)
        total = (sigma**2 + sigma_data**2).sqrt()
        x = x_in * total
        return (LAM / (LAM + sigma**2) * x - sigma_data**2 / total**2 * x) / (sigma * sigma_data / total)

    return EDMDenoiser(network, sigma_data)


def flow():
    def network(x_t, time):
        t = column(time / 1000, x_t)
        clean = LAM * (1 - t) / (LAM * (1 - t) ** 2 + t**2) * x_t  # E[x0 | x_t]
        noise = (x_t - (1 - t) * clean) / t
        return noise - clean

    return FlowDenoiser(network)


def ddpm(prediction, alphas=ALPHAS, abar_end=None):
    table = alphas.clone()
    if abar_end is not None:
        table[-1] = abar_end

    def network(x_t, timestep):
        assert torch.equal(timestep, timestep.round()), f"asked between two timesteps: {timestep}"
        abar = column(table.to(x_t.dtype)[timestep.long()], x_t)
        clean = abar.sqrt() * LAM / (abar * LAM + 1 - abar) * x_t  # E[x0 | x_t]
        epsilon = (x_t - abar.sqrt() * clean) / (1 - abar).sqrt()
        return {
            "epsilon": epsilon,
            "v": abar.sqrt() * epsilon - (1 - abar).sqrt() * clean,
            "sample": clean,
        }[prediction]

    return DDPMDenoiser(network, alphas, prediction)


DENOISERS = {
    "edm": edm,
    "edm_other_sigma_data": lambda: edm(1.3),
    "epsilon": lambda: ddpm("epsilon"),
    "v": lambda: ddpm("v"),
    "sample": lambda: ddpm("sample"),
    "flow": flow,
}


def draw(n=5, dtype=torch.float64):
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("name", DENOISERS)
def test_every_adapter_gives_the_optimal_denoiser(name):
    denoiser = DENOISERS[name]()
    sigma = ((1 - ALPHAS) / ALPHAS).sqrt()[[0, 1, 500, 998, 999]]
    x = draw() * column((LAM + sigma**2).sqrt(), draw())
    torch.testing.assert_close(denoiser(x, sigma), optimal(x, sigma), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(denoiser(x, sigma[2]), optimal(x, sigma[2].expand(5)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DENOISERS)
def test_float32_is_accurate_over_the_whole_range(name):
    denoiser = DENOISERS[name]()
    sigma = ((1 - ALPHAS) / ALPHAS).sqrt()[[0, 1, 500, 998, 999]].float()
    x = draw(dtype=torch.float32) * column((LAM + sigma**2).sqrt(), draw())
    truth = optimal(x.double(), sigma.double()).float()
    # the error of x0 is the rounding of x, plus, for epsilon alone, that of sigma * epsilon (hazard (i))
    torch.testing.assert_close(denoiser(x, sigma), truth, rtol=2e-4, atol=3e-4 if name == "epsilon" else 3e-6)


@pytest.mark.parametrize("prediction", ["v", "sample"])
def test_zero_terminal_snr(prediction):
    denoiser = ddpm(prediction, ZERO_SNR, abar_end=2.0**-24)
    assert denoiser.sigma_max == pytest.approx(4096, rel=1e-6)
    sigma = torch.tensor(denoiser.sigma_max)
    x = draw(dtype=torch.float32) * sigma
    torch.testing.assert_close(denoiser(x, sigma), optimal(x, sigma), rtol=1e-4, atol=1e-6)
    samples = euler(denoiser, draw(dtype=torch.float32), ddpm_sigmas(denoiser, 20))
    assert samples.isfinite().all()
    assert 0.5 * math.sqrt(LAM) < float(samples.std()) < 1.1 * math.sqrt(LAM)


def test_euler_gain_is_exact():
    sigmas = torch.tensor([7.0, 2.5, 0.4, 0.1], dtype=torch.float64)
    gain = 1.0
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        gain *= 1 + (following / sigma - 1) * sigma**2 / (LAM + sigma**2)
    x = euler(edm(), draw(), sigmas)
    torch.testing.assert_close(x, gain * 7.0 * draw(), rtol=1e-12, atol=0)


def test_heun_gain_is_exact():
    sigma, following = 2.5, 0.4
    mu, mu_after = LAM / (LAM + sigma**2), LAM / (LAM + following**2)
    slope = (1 - mu) / sigma
    euler_gain = 1 + (following - sigma) * slope
    gain = 1 + (following - sigma) / 2 * (slope + euler_gain * (1 - mu_after) / following)
    x = heun(optimal, draw(), torch.tensor([sigma, following], dtype=torch.float64))
    torch.testing.assert_close(x, gain * sigma * draw(), rtol=1e-12, atol=0)
    clean = heun(optimal, draw(), torch.tensor([sigma, 0.0], dtype=torch.float64))
    torch.testing.assert_close(clean, mu * sigma * draw(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (ddim, 1), (heun, 2)])
def test_order_of_convergence_to_the_exact_flow(sampler, order):
    first, last = 10.0, 0.05
    truth = math.sqrt((LAM + last**2) / (LAM + first**2)) * first * draw()
    errors = []
    for n in (50, 100, 200):
        sigmas = torch.linspace(math.log(first), math.log(last), n + 1, dtype=torch.float64).exp()
        sigmas[0] = first
        errors.append(float((sampler(optimal, draw(), sigmas) - truth).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", ["edm", "flow"])
def test_samples_have_the_variance_of_the_data(name):
    denoiser = DENOISERS[name]()
    x = heun(denoiser, draw(), karras_sigmas(60, 2e-3, 80.0).double())
    exact = math.sqrt(LAM / (LAM + 80.0**2)) * 80.0
    torch.testing.assert_close(x, exact * draw(), rtol=5e-3, atol=0)  # 0.4 % is the error of 60 steps


def nonlinear(x, sigma, conditioning=None):
    return torch.tanh(x / (1 + sigma**2)) - 0.1 * x.roll(1, -1)


def test_ddim_is_euler_in_another_frame():
    sigmas = karras_sigmas(12, 0.01, 157.0).double()
    for levels in (sigmas, sigmas[:7]):  # also when it stops before 0
        expected = euler(nonlinear, draw(), levels)
        torch.testing.assert_close(ddim(nonlinear, draw(), levels), expected, rtol=1e-10, atol=1e-10)


def test_euler_is_the_flow_euler_with_equal_steps_of_time():
    def velocity(x_t, time):
        return torch.tanh(x_t) * time.reshape(-1, 1, 1, 1) / 1000 - x_t

    n = 8
    sigmas = flow_sigmas(n).double()
    times = sigmas / (1 + sigmas)
    torch.testing.assert_close(times.diff(), times.new_full((n,), -times[0].item() / n), rtol=1e-4, atol=0)
    x_t = times[0] * draw()
    for t, following in pairwise(times):
        x_t = x_t + (following - t) * velocity(x_t, 1000 * t.expand(5))
    torch.testing.assert_close(euler(FlowDenoiser(velocity), draw(), sigmas), x_t, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["edm", "epsilon", "v", "sample", "flow"])
def test_uniform_weight_is_a_plain_error_of_the_prediction(name):
    """A network off by exactly one everywhere has loss one at every noise level, whatever it predicts."""
    right = DENOISERS[name]()
    network = right.model
    wrong = type(right)(lambda x, t: network(x, t) + 1, *((ALPHAS, name) if isinstance(right, DDPMDenoiser) else ()))
    sigma = ((1 - ALPHAS) / ALPHAS).sqrt()[[0, 10, 500, 998, 999]]
    loss = denoising_loss(wrong(draw(), sigma), right(draw(), sigma), right.uniform_weight(sigma))
    torch.testing.assert_close(loss, torch.ones_like(loss), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("name", "target"), [("epsilon", lambda snr: 1 / snr), ("v", lambda snr: 1 / (snr + 1))])
def test_min_snr_identities(name, target):
    """min(SNR, 5) on the sample is min(SNR, 5) / SNR on epsilon and min(SNR, 5) / (SNR + 1) on v."""
    right = DENOISERS[name]()
    network = right.model
    wrong = DDPMDenoiser(lambda x, t: network(x, t) + x, ALPHAS, name)
    index = torch.tensor([0, 10, 500, 998, 999])
    sigma, snr = right.sigmas[index], ALPHAS[index] / (1 - ALPHAS[index])
    x_t = draw() * column(ALPHAS[index].sqrt(), draw())
    error = (wrong.model(x_t, index.double()) - network(x_t, index.double())).square().flatten(1).mean(1)
    loss = denoising_loss(wrong(draw(), sigma), right(draw(), sigma), min_snr_weight(sigma, 5.0))
    torch.testing.assert_close(loss, snr.clamp(max=5) * target(snr) * error, rtol=1e-7, atol=0)
