"""DDIM, the DDPM adapters and flow matching against diffusers' own schedulers, with a real network."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)

from lsdr.diffusion.ddim import ddim
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.euler import euler
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.models import build_model
from lsdr.diffusion.sigmas import ddpm_sigmas

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]


@pytest.fixture(scope="module")
def network() -> UNet2DModel:
    torch.manual_seed(0)
    model = build_model("unet-tiny", channels=3, size=8)
    torch.nn.init.normal_(model.conv_out.weight, std=0.05)
    return model.eval().requires_grad_(False)


@pytest.fixture
def noise():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def their_samples(scheduler, network, x, steps):
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, timestep), timestep).sample, timestep, x).prev_sample
    return x


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", [ddim, euler])
def test_ddim(network, noise, prediction, schedule, sampler):
    scheduler = DDIMScheduler(
        prediction_type=prediction, beta_schedule=schedule, clip_sample=False, timestep_spacing="trailing"
    )
    denoiser = DDPMDenoiser.from_scheduler(network, scheduler)
    sigmas = ddpm_sigmas(denoiser, 10)
    scheduler.set_timesteps(10)
    assert torch.equal(denoiser.timestep(sigmas[:-1]), scheduler.timesteps.float())
    start = noise * (1 - scheduler.alphas_cumprod[-1]).sqrt()  # what our sigmas[0] * noise is in their frame
    theirs = their_samples(scheduler, network, start, 10)
    # Noise prediction at the end of a schedule divides by sqrt(abar), which magnifies rounding equally in both
    scale = float(theirs.abs().max())
    torch.testing.assert_close(sampler(denoiser, noise, sigmas), theirs, rtol=1e-3, atol=2e-5 * scale)


@pytest.mark.parametrize("steps", [1, 3, 7, 16, 50, 1000])  # at 48 numpy.arange rounds theirs off the half
def test_trailing_timesteps(steps):
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    denoiser = DDPMDenoiser.from_scheduler(None, scheduler)
    assert torch.equal(denoiser.timestep(ddpm_sigmas(denoiser, steps)[:-1]), scheduler.timesteps.float())


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_at_zero_terminal_snr(network, noise, prediction, schedule):
    scheduler = DDIMScheduler(
        prediction_type=prediction,
        beta_schedule=schedule,
        clip_sample=False,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    assert scheduler.alphas_cumprod[-1] == 0
    denoiser = DDPMDenoiser.from_scheduler(network, scheduler)
    theirs = their_samples(scheduler, network, noise, 10)
    torch.testing.assert_close(ddim(denoiser, noise, ddpm_sigmas(denoiser, 10)), theirs, rtol=1e-3, atol=1e-3)


# diffusers 0.42 calls np.array on a tensor
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_euler_in_the_variance_exploding_frame(network, noise, prediction):
    scheduler = EulerDiscreteScheduler(prediction_type=prediction, timestep_spacing="trailing")
    denoiser = DDPMDenoiser.from_scheduler(network, scheduler)
    scheduler.set_timesteps(10)
    sigmas = ddpm_sigmas(denoiser, 10)
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=1e-5, atol=0)
    theirs = their_samples(scheduler, network, noise * sigmas[0], 10)
    torch.testing.assert_close(euler(denoiser, noise, sigmas), theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_zero_snr_table_is_in_order(scheduler, schedule):
    denoiser = DDPMDenoiser.from_scheduler(
        None, scheduler(prediction_type="v_prediction", beta_schedule=schedule, rescale_betas_zero_snr=True)
    )
    assert (denoiser.sigmas.diff() > 0).all()
    expected = 4096 if schedule != "linear" else 30812  # diffusers' own 4096 lies below its neighbour 15406
    assert denoiser.sigma_max == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("index", [0, 1, 300, 998, 999])
def test_training_noise_is_the_same(noise, index):
    """Their x_t at a timestep, for the same clean image and noise, is what our adapter feeds the network."""
    scheduler, seen = DDPMScheduler(), []
    denoiser = DDPMDenoiser.from_scheduler(lambda x, t: seen.append((x, t)) or x, scheduler)
    clean = torch.tanh(noise.flip(0))
    sigma = denoiser.draw_sigma(torch.full((2,), (index + 0.5) / 1000))
    denoiser(clean + sigma.reshape(-1, 1, 1, 1) * noise, sigma)
    x_t, timestep = seen[0]
    assert torch.equal(timestep, torch.full((2,), float(index)))
    torch.testing.assert_close(x_t, scheduler.add_noise(clean, noise, timestep.long()), rtol=1e-5, atol=2e-6)


def test_flow_matching(network, noise):
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.9, 0.6, 0.3, 0.1])
    x = noise * 0.9
    for timestep in scheduler.timesteps:
        x = scheduler.step(network(x, timestep.expand(2)).sample, timestep, x).prev_sample
    times = scheduler.sigmas
    ours = euler(FlowDenoiser(network), noise, times / (1 - times))
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_schedulers_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="use FlowDenoiser"):
        DDPMDenoiser.from_scheduler(None, FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="zero terminal"):
        DDPMDenoiser.from_scheduler(None, DDPMScheduler(rescale_betas_zero_snr=True))
