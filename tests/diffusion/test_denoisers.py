"""The ends of the range, bad input, precision, and the training distributions of noise."""

import copy

import jaxtyping
import pytest
import torch
from torch import nn

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.loss import denoising_loss
from lsdr.diffusion.weighting import WEIGHTINGS, edm_weight, min_snr_weight

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
ZERO_SNR = torch.cat([ALPHAS[:-1], torch.zeros(1)])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.dtypes = []

    def forward(self, x, t):
        out = self.conv(x)
        self.dtypes.append((x.dtype, t.dtype, out.dtype))
        return out + t.reshape(-1, 1, 1, 1).to(out.dtype) / 1000


def denoisers(model):
    return {
        "edm": EDMDenoiser(model),
        "epsilon": DDPMDenoiser(model, ALPHAS, "epsilon"),
        "v": DDPMDenoiser(model, ALPHAS, "v"),
        "v_zero_snr": DDPMDenoiser(model, ZERO_SNR, "v"),
        "sample": DDPMDenoiser(model, ALPHAS, "sample"),
        "flow": FlowDenoiser(model),
    }


NAMES = list(denoisers(None))


@pytest.mark.parametrize("name", NAMES)
def test_is_a_denoiser(name):
    assert isinstance(denoisers(None)[name], Denoiser)


@pytest.mark.parametrize("name", NAMES)
def test_sigma_zero_returns_x_to_the_bit(name):
    x = torch.randn(4, 3, 8, 8)
    denoise = denoisers(Net())[name]
    assert torch.equal(denoise(x, torch.tensor(0.0)), x)
    mixed = denoise(x, torch.tensor([0.0, 1.0, 0.0, 2.0]))
    assert torch.equal(mixed[::2], x[::2])
    assert not torch.equal(mixed[1::2], x[1::2])


@pytest.mark.parametrize("name", NAMES)
def test_finite_at_the_ends_and_beyond(name):
    denoise = denoisers(Net())[name]
    for sigma in (1e-20, denoise.sigma_min, denoise.sigma_max, 10 * denoise.sigma_max):
        level = torch.tensor(sigma, requires_grad=True)
        x = (torch.randn(2, 3, 8, 8) * (1 + sigma)).requires_grad_()
        out = denoise(x, level)
        assert out.isfinite().all()
        out.sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [torch.tensor(-1.0), torch.tensor(float("nan")), torch.tensor([1.0, float("inf")])])
def test_bad_sigma_is_refused(name, sigma):
    with pytest.raises(ValueError, match="sigma must be finite and not negative"):
        denoisers(Net())[name](torch.zeros(2, 3, 8, 8), sigma)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1, 1, 1)])
def test_sigma_of_another_shape_is_refused(name, shape):
    with pytest.raises(ValueError, match="noise level"):
        denoisers(Net())[name](torch.zeros(2, 3, 8, 8), torch.ones(shape))


@pytest.mark.parametrize("name", NAMES)
def test_network_runs_in_bf16_and_preconditioning_in_float32(name):
    model = Net()
    denoise = denoisers(model)[name]
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.01, 10.0])
    full = denoise(x, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        half = denoise(x, sigma)
    assert model.dtypes[-1] == (torch.float32, torch.float32, torch.bfloat16)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    scale = 10.0 if name == "epsilon" else 1.0
    torch.testing.assert_close(half, full, rtol=0, atol=0.05 * scale)
    # at low noise almost all of D is x itself, which bfloat16 would have rounded to 3 digits
    if name != "sample":
        torch.testing.assert_close(half[0], full[0], rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_types_in_and_out(name):
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model = Net()
    assert denoisers(model)[name](x, torch.tensor(1.0)).dtype == torch.float64
    assert denoisers(copy.deepcopy(model).bfloat16())[name](x.float(), torch.tensor(1.0)).dtype == torch.float32
    assert denoisers(model)[name](x.bfloat16(), torch.tensor(1.0)).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_parameters_and_input(name):
    model = Net()
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    denoisers(model)[name](x, torch.tensor([0.5, 2.0])).square().mean().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.fixture
def _no_shape_checks():
    """The shape checks of the test suite are not what torch.compile should trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", ["edm", "v", "flow"])
@pytest.mark.usefixtures("_no_shape_checks")
def test_compiles(name):
    model = Net()
    denoise = denoisers(model)[name]
    compiled = torch.compile(denoise, backend="eager")
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(compiled(x, sigma), denoise(x, sigma))
    wrapped = denoisers(torch.compile(model, backend="eager"))[name]
    torch.testing.assert_close(wrapped(x, sigma), denoise(x, sigma))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_level_of_the_table_gives_its_timestep_exactly(dtype):
    denoise = DDPMDenoiser(None, ALPHAS, "v")
    table = denoise.sigmas.to(dtype)
    assert torch.equal(denoise.timestep(table), torch.arange(1000, dtype=dtype))
    for one in (0, 1, 7, 500, 998, 999):
        assert denoise.timestep(table[one].clone()) == one
    assert denoise.timestep(torch.tensor(denoise.sigma_max)) == 999
    assert denoise.timestep(torch.tensor(denoise.sigma_min)) == 0


def test_between_two_levels_the_timestep_is_linear_in_log_sigma():
    denoise = DDPMDenoiser(None, ALPHAS, "v")
    middle = (denoise.sigmas[:-1] * denoise.sigmas[1:]).sqrt()
    torch.testing.assert_close(denoise.timestep(middle), torch.arange(999, dtype=torch.float64) + 0.5)


def test_epsilon_and_zero_terminal_snr_exclude_each_other():
    with pytest.raises(ValueError, match=r"zero terminal .* epsilon"):
        DDPMDenoiser(None, ZERO_SNR, "epsilon")


@pytest.mark.parametrize("bad", [[0.9], [0.5, 0.9], [0.9, 0.9], [1.0, 0.5], [0.5, -0.1], [0.5, float("nan")]])
def test_a_table_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="strictly decreasing"):
        DDPMDenoiser(None, torch.tensor(bad), "v")


def test_bad_constants_are_refused():
    with pytest.raises(ValueError, match="sigma_data"):
        EDMDenoiser(None, sigma_data=0.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        EDMDenoiser(None, sigma_min=1.0, sigma_max=1.0)


def test_draws_follow_the_published_distributions():
    uniform = (torch.arange(20000) + 0.5) / 20000
    log_sigma = EDMDenoiser(None).draw_sigma(uniform).log()
    assert log_sigma.mean() == pytest.approx(-1.2, abs=1e-3)
    assert log_sigma.std() == pytest.approx(1.2, abs=1e-3)
    sigma = FlowDenoiser(None).draw_sigma(uniform)
    logit = (sigma / (1 + sigma)).logit()
    assert logit.mean() == pytest.approx(0, abs=1e-3)
    assert logit.std() == pytest.approx(1, abs=1e-3)
    denoise = DDPMDenoiser(None, ALPHAS, "v")
    counts = denoise.timestep(denoise.draw_sigma(uniform)).long().bincount(minlength=1000)
    assert torch.equal(counts, torch.full((1000,), 20))


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_monotone_finite_and_positive_at_both_ends(name):
    uniform = torch.tensor([0.0, 1e-9, 0.1, 0.5, 0.9, 1 - 2.0**-24, 1.0])
    sigma = denoisers(None)[name].draw_sigma(uniform)
    assert sigma.isfinite().all()
    assert (sigma > 0).all()
    assert (sigma.diff() >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_are_finite_at_every_drawn_level_and_at_infinity(name, weighting):
    denoise = denoisers(None)[name]
    sigma = torch.cat([denoise.draw_sigma(torch.linspace(0, 1, 101)), torch.tensor([1e30, float("inf")])])
    weight = WEIGHTINGS[weighting](denoise, sigma)
    assert weight.shape == sigma.shape
    assert weight.isfinite().all()
    assert (weight >= 0).all()


def test_weights_as_published():
    sigma = torch.tensor([0.01, 0.5, 3.0, 80.0])
    torch.testing.assert_close(edm_weight(sigma, 0.7), (sigma**2 + 0.49) / (sigma * 0.7) ** 2)
    torch.testing.assert_close(min_snr_weight(sigma, 5.0), torch.minimum(sigma**-2, torch.tensor(5.0)))
    denoise = EDMDenoiser(None, sigma_data=0.7)
    torch.testing.assert_close(WEIGHTINGS["edm"](denoise, sigma), edm_weight(sigma, 0.7))
    torch.testing.assert_close(WEIGHTINGS["uniform"](denoise, sigma), edm_weight(sigma, 0.7))


def test_loss_is_per_example_in_float32_and_checks_shapes():
    denoised, clean = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    weight = torch.tensor([1.0, 2.0, 0.0])
    expected = torch.stack([w * (d - c).square().mean() for w, d, c in zip(weight, denoised, clean, strict=True)])
    torch.testing.assert_close(denoising_loss(denoised, clean, weight), expected)
    half = denoising_loss(denoised.bfloat16(), clean.bfloat16(), weight.bfloat16())
    assert half.dtype == torch.float32
    with pytest.raises(ValueError, match="one per example"):
        denoising_loss(denoised, clean, torch.ones(2))
