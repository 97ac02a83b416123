"""Networks that are conditioned on text: what they are called with, guided, sampled and measured with."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from lsdr.diffusion.call_model import call_model
from lsdr.diffusion.ddim import ddim
from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.euler import euler
from lsdr.diffusion.guidance import GuidedDenoiser
from lsdr.diffusion.heun import heun
from lsdr.diffusion.measures.heldout_loss import heldout_loss
from lsdr.diffusion.measures.lyapunov import lyapunov
from lsdr.diffusion.measures.measure import heun_steps, sample_heun
from lsdr.diffusion.measures.mmse_identity import mmse_identity
from lsdr.diffusion.measures.noisy_levels import noisy_levels
from lsdr.diffusion.measures.operator_by_noise import Effort, operator_by_noise
from lsdr.diffusion.measures.prediction_check import prediction_check
from lsdr.diffusion.measures.sensitivity import sensitivity
from lsdr.diffusion.weighting import min_snr_weight
from lsdr.probes.conditioning import rows_of, tensors_of

_spec = importlib.util.spec_from_file_location("text_conditioned", Path(__file__).with_name("text_conditioned.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

SIGMAS = torch.tensor([4.0, 1.0, 0.0])
FAMILIES = pytest.mark.parametrize("family", shared.FAMILIES)


def noise(count=2, seed=0):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@FAMILIES
def test_a_network_is_called_by_keyword(family):
    net, x, t, given = shared.network(family), noise(), torch.tensor([3.0, 700.0]), shared.conditioning(family, 2)
    with torch.no_grad():
        found = call_model(net, x, t, given)
        assert torch.equal(found, net(x, timestep=t, **given).sample)
        # Every part of it matters, to its own example alone.
        for place in range(len(tensors_of(given))):
            other = shared.conditioning(family, 2)
            tensors_of(other)[place][1] += 1
            moved = call_model(net, x, t, other)
            assert torch.allclose(moved[0], found[0], atol=1e-6)
            assert float((moved[1] - found[1]).norm() / found[1].norm()) > 1e-4


@FAMILIES
def test_embeddings_take_the_type_of_the_weights(family):
    net = shared.network(family).to(torch.bfloat16)
    seen = {}
    net.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.update(keywords, x=arguments[0]), with_kwargs=True
    )
    given = shared.conditioning(family, 2)
    with torch.no_grad():
        found = shared.denoiser(family, net)(noise(), torch.tensor(0.5), given)
    types = {each.dtype for each in tensors_of(seen) if each is not seen["timestep"]}
    assert types == ({torch.bfloat16, torch.int64} if family == "sdxl" else {torch.bfloat16})
    assert {each.dtype for each in tensors_of(given)} <= {torch.float32, torch.int64}  # the caller's are left alone
    assert found.dtype == torch.float32
    with torch.no_grad():
        full = shared.denoiser(family, shared.network(family))(noise(), torch.tensor(0.5), given)
    assert float((found - full).norm() / full.norm()) < 0.05


def test_quantized_weights_do_not_say_what_images_are_cast_to():
    """Weights stored in 4 or 8 bits come first in a quantized transformer; an image in their type would be ruined."""

    class Quantized(nn.Module):
        def __init__(self):
            super().__init__()
            self.packed = nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False)
            self.stored = nn.Parameter(torch.zeros(3).to(torch.float8_e4m3fn), requires_grad=False)
            self.norm = nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x, timestep, text):
            assert x.dtype == text.dtype == torch.bfloat16
            return x

    x = 0.5 * torch.ones(2, 1, 4, 4)
    assert torch.equal(call_model(Quantized(), x, torch.ones(2), {"text": torch.ones(2, 3)}), x)


@FAMILIES
def test_what_a_network_of_text_is_not_given(family):
    net, x = shared.network(family), noise()
    for given in (None, torch.tensor([0, 1])):
        with pytest.raises(ValueError, match=r"attends to text .* pass a mapping"):
            call_model(net, x, torch.ones(2), given)
    with pytest.raises(ValueError, match=r"conditioning\['encoder_hidden_states'\] has shape \(3, 5, 12\) for 2"):
        call_model(net, x, torch.ones(2), shared.conditioning(family, 3))


def test_values_that_are_no_tensors_are_passed_on():
    seen = {}

    def model(x, timestep, **named):
        seen.update(named, timestep=timestep)
        return x

    given = {"text": torch.ones(2, 3), "joint_attention_kwargs": {"scale": 0.5}, "residuals": (torch.ones(2, 1), None)}
    call_model(model, noise(), torch.ones(2), given)
    assert seen["joint_attention_kwargs"] == {"scale": 0.5}
    assert seen["residuals"][1] is None
    assert torch.equal(seen["timestep"], torch.ones(2))


@FAMILIES
def test_guidance_mixes_what_the_network_says_with_and_without(family):
    net = shared.network(family)
    denoise, given, empty = (
        shared.denoiser(family, net),
        shared.conditioning(family, 2),
        shared.conditioning(family, 1, 9),
    )
    all_empty = rows_of(empty, torch.zeros(2, dtype=torch.long))
    x, sigma = noise(), torch.tensor([0.4, 2.0])
    with torch.no_grad():
        with_, without = denoise(x, sigma, given), denoise(x, sigma, all_empty)
        for scale in (0, 0.5, 1.0, 7.5):
            guided = GuidedDenoiser(denoise, scale, empty)
            assert torch.allclose(guided(x, sigma, given), without + scale * (with_ - without), atol=1e-4)
        one_each = GuidedDenoiser(denoise, 7.5, all_empty)
        assert torch.allclose(one_each(x, sigma, given), without + 7.5 * (with_ - without), atol=1e-4)
        apart = torch.tensor(1.1)  # 0-d
        assert torch.equal(guided(x, apart, given), guided(x, apart.expand(2), given))
    assert isinstance(guided, Denoiser)
    assert (guided.model, guided.sigma_min, guided.sigma_max) == (net, denoise.sigma_min, denoise.sigma_max)
    uniform = torch.tensor([0.2, 0.8])
    assert torch.equal(guided.draw_sigma(uniform), denoise.draw_sigma(uniform))
    assert torch.equal(guided.uniform_weight(sigma), denoise.uniform_weight(sigma))


def test_guidance_of_class_labels():
    seen = []

    def model(x, t, class_labels):
        seen.append(class_labels.tolist())
        return class_labels.view(-1, 1, 1, 1).expand_as(x).to(x)

    denoise = EDMDenoiser(model)
    found = GuidedDenoiser(denoise, 2.0, torch.tensor([10]))(noise(), torch.tensor(1.0), torch.tensor([3, 4]))
    assert seen == [[3, 4, 10, 10]]
    expected = denoise(noise(), torch.tensor(1.0), torch.tensor([2 * 3 - 10, 2 * 4 - 10]))
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_guidance_refuses():
    denoise = EDMDenoiser(lambda x, timestep, text: x)
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale must be finite"):
            GuidedDenoiser(denoise, scale, {"text": torch.zeros(1)})
    with pytest.raises(ValueError, match="holds no tensor"):
        GuidedDenoiser(denoise, 2.0, {"text": None})
    guided = GuidedDenoiser(denoise, 2.0, {"text": torch.zeros(3, 5)})
    with pytest.raises(ValueError, match="was given None"):
        guided(noise(), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"unconditional\['text'\] has shape \(3, 5\) for 2 examples"):
        guided(noise(), torch.tensor(1.0), {"text": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="do not go together"):
        GuidedDenoiser(denoise, 2.0, {"text": torch.zeros(1, 5)})(
            noise(), torch.tensor(1.0), {"text": torch.zeros(2, 4)}
        )


@FAMILIES
@pytest.mark.parametrize("sampler", [euler, heun, ddim])
def test_samplers_pass_it_on(family, sampler):
    denoise, given = shared.denoiser(family, shared.network(family)), shared.conditioning(family, 2)
    with torch.no_grad():
        both = sampler(denoise, noise(), SIGMAS, given)
        alone = sampler(denoise, noise()[1:], SIGMAS, rows_of(given, slice(1, 2)))
    assert torch.allclose(both[1:], alone, atol=1e-4)


@FAMILIES
def test_losses_of_zero_terminal_snr_are_finite(family):
    """Weights stand on the estimate of the clean image, so nothing is divided by a vanishing signal."""
    if family == "sd3":
        denoise = shared.denoiser(family, shared.network(family))
    else:
        table = torch.cat([shared.ALPHAS[:-1], torch.zeros(1)])
        denoise = shared.DDPMDenoiser(shared.network(family), table, "v")
    sigma = torch.tensor([denoise.sigma_min, denoise.sigma_max])
    x = noise() * sigma.view(-1, 1, 1, 1)
    found = denoise(x, sigma, shared.conditioning(family, 2))
    weight = min_snr_weight(sigma)
    assert weight.isfinite().all()
    (weight * found.square().mean((1, 2, 3))).sum().backward()
    assert all(each.grad.isfinite().all() for each in denoise.model.parameters() if each.grad is not None)


class Scaled(nn.Module):
    """A network whose estimate, under EDM, is s x for each image's own s."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x, timestep, scale, added):
        # EDM with sigma_data = 1: x_in = x / sqrt(1 + sigma^2), D = x / (1 + sigma^2) + sigma F / sqrt(1 + sigma^2)
        sigma = (4 * timestep).exp().view(-1, 1, 1, 1)
        root = (1 + sigma**2).sqrt()
        return self.one * (scale["s"].view(-1, 1, 1, 1) - 1 / root**2) * x * root**2 / sigma + 0 * added.sum()


SCALES = torch.tensor([0.25, 0.5, 0.75])
SCALED = {"scale": {"s": SCALES}, "added": torch.zeros(3, 2)}


def test_measures_keep_every_image_with_its_own():
    denoise, clean = EDMDenoiser(Scaled(), sigma_data=1.0), noise(3)
    level = torch.tensor([0.5, 1.0])
    generator = torch.Generator().manual_seed(0)
    repeated = noisy_levels(clean, level, SCALED, None).conditioning
    assert repeated["scale"]["s"].tolist() == 2 * SCALES.tolist()
    found = mmse_identity(denoise, clean, level, conditioning=SCALED, batch=2, generator=generator)
    assert found.trace.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)  # the mean of the scales
    for effort in (Effort(steps=4, batch=2), Effort(steps=4, quick=True, batch=2)):
        levels = operator_by_noise(
            denoise, clean, found, [0.1, 0.5], k=1, conditioning=SCALED, effort=effort, generator=generator
        )
        assert levels[1].eigenvalues["median"] == pytest.approx([0.5], abs=1e-3)
        assert levels[0].eigenvalues["high"][0] == pytest.approx(
            0.7, abs=1e-3
        )  # 90 % of the way, between the upper two
    given = rows_of(SCALED, slice(1, 2))
    alone = heldout_loss(denoise, clean[1:2], labels=given, bands=3, generator=torch.Generator().manual_seed(1))
    again = heldout_loss(Fixed(denoise, 0.5), clean[1:2], bands=3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(alone.loss, again.loss, atol=1e-5)
    with pytest.raises(ValueError, match=r"conditioning\['scale'\]\['s'\] has shape"):
        heldout_loss(denoise, clean[:2], labels=SCALED)


class Fixed:
    """D(x) = s x without any conditioning."""

    def __init__(self, denoise, scale):
        self.model, self.draw_sigma, self.scale = denoise.model, denoise.draw_sigma, scale
        self.sigma_min, self.sigma_max, self.uniform_weight = (
            denoise.sigma_min,
            denoise.sigma_max,
            denoise.uniform_weight,
        )

    def __call__(self, x, sigma, conditioning=None):
        return self.scale * x


def test_measures_of_the_sampler_keep_every_image_with_its_own():
    denoise = EDMDenoiser(Scaled(), sigma_data=1.0)
    sample = sample_heun(denoise, noise(3), SIGMAS, SCALED, 2)
    for place in range(3):
        alone = heun(denoise, noise(3)[place : place + 1], SIGMAS, rows_of(SCALED, slice(place, place + 1)))
        assert torch.allclose(sample[place : place + 1], alone, atol=1e-5)
    ratio = sensitivity(lambda z, given: sample_heun(denoise, z, SIGMAS, given, 2), noise(3), conditioning=SCALED)
    expected = sample.flatten(1).norm(dim=1) / noise(3).flatten(1).norm(dim=1)  # the sampler is linear
    assert torch.allclose(ratio, expected.to(ratio), rtol=1e-3)
    found = lyapunov(heun_steps(denoise, SIGMAS), noise(3), conditioning=SCALED, directions=1, iterations=2)
    assert torch.allclose(found.exponents[:, 0], expected.double().log() / 2, atol=1e-3)


@FAMILIES
def test_predictions_are_checked_under_text(family):
    """An untrained network fits no reading; what counts is that every reading is tried with the conditioning."""
    found = prediction_check(
        shared.denoiser(family, shared.network(family)),
        0.1 * noise(2),
        conditioning=shared.conditioning(family, 2),
        levels=3,
        generator=torch.Generator().manual_seed(0),
    )
    assert found.fits is None
    assert found.others
    assert all(bool(each.isfinite().all()) for each in found.others.values())
