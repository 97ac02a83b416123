"""The denoisers of all families agree with diffusers' own pipelines and schedulers."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.euler import euler
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.guidance import GuidedDenoiser
from lsdr.diffusion.weighting import WEIGHTINGS
from lsdr.stable_diffusion.flux import FluxNetwork, pack, unpack
from lsdr.stable_diffusion.latents import decode_latents
from lsdr.stable_diffusion.network import denoiser_of, network_conditioning, sampling_sigmas, zero_terminal
from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.text import encode_captions

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

CAPTION = "a photo of a flower"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {family: tiny.make(folder / family, family) for family in tiny.FAMILIES}


@pytest.fixture(scope="module")
def pipelines(folders):
    return {family: load_pipeline(folder) for family, folder in folders.items()}


def conditioning(pipeline, captions, size=(64, 64)):
    ids = torch.tensor([[*size, 0, 0, *size]] * len(captions)) if pipeline.family == "sdxl" else None
    return network_conditioning(pipeline.family, encode_captions(pipeline, captions), ids)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler scheduler
@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_pictures_are_those_of_diffusers_own_pipeline(folders, pipelines, family, size):
    """The whole way: text, guidance or none, parametrisation, sampler, VAE; an aspect ratio other than 1 too."""
    pipeline = pipelines[family]
    pipe = diffusers.DiffusionPipeline.from_pretrained(folders[family], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    if family in ("sd", "sd2", "sdxl"):
        changes = {"timestep_spacing": "trailing", "steps_offset": 0}
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config, **changes)
    channels = pipeline.vae.config.latent_channels
    noise = torch.randn((1, channels, size[0] // 8, size[1] // 8), generator=torch.Generator().manual_seed(0))
    given = pack(noise) if family == "flux" else noise.clone()
    guidance = {"flux": 1.0}.get(family, 4.0)
    expected = pipe(
        CAPTION,
        height=size[0],
        width=size[1],
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=given,
        output_type="latent",
        **({"negative_prompt": ""} if family != "flux" else {}),
    ).images
    expected = unpack(expected, size[0] // 8, size[1] // 8) if family == "flux" else expected

    denoiser = denoiser_of(pipeline)(pipeline.network.eval())
    if family in ("sd", "sd2", "sdxl"):
        sigmas = sampling_sigmas(denoiser, 4)
    else:
        t = pipe.scheduler.sigmas.double().clamp(max=1 - 1e-4)  # their times; at t = 1 sigma is infinite
        sigmas = (t / (1 - t)).float()
    guided = denoiser if family == "flux" else GuidedDenoiser(denoiser, guidance, conditioning(pipeline, [""], size))
    found = euler(guided, noise, sigmas, conditioning(pipeline, [CAPTION], size))
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    shift = getattr(pipeline.vae.config, "shift_factor", None) or 0.0
    with torch.no_grad():
        pixels = pipe.vae.decode(expected / pipe.vae.config.scaling_factor + shift).sample
    torch.testing.assert_close(decode_latents(pipeline.vae, expected), pixels.clamp(-1, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["sd", "sd2", "sdxl"])
def test_the_loss_is_that_of_diffusers_training_scripts(pipelines, family):
    """Their mean squared error of epsilon or v, on the scheduler's own noisy latents, is ours with uniform_weight."""
    pipeline = pipelines[family]
    scheduler = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    torch.manual_seed(0)
    z, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([10, 400, 999])
    given = conditioning(pipeline, ["a", "flower", ""])
    predicted = pipeline.network(scheduler.add_noise(z, noise, t), t, **given).sample
    epsilon = scheduler.config.prediction_type == "epsilon"
    target = noise if epsilon else scheduler.get_velocity(z, noise, t)
    expected = (predicted - target).square().mean(dim=(1, 2, 3))
    denoiser = denoiser_of(pipeline)(pipeline.network)
    assert denoiser.prediction == ("epsilon" if epsilon else "v")
    sigma = denoiser.sigmas[t].float()
    denoised = denoiser(z + sigma.view(-1, 1, 1, 1) * noise, sigma, given)
    found = denoiser.uniform_weight(sigma) * (denoised - z).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_loss_is_the_squared_error_of_the_velocity(pipelines, family):
    pipeline = pipelines[family]
    torch.manual_seed(0)
    z, noise, t = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8), torch.tensor([0.2, 0.9])
    given = conditioning(pipeline, ["a", "flower"])
    blend = (1 - t).view(-1, 1, 1, 1) * z + t.view(-1, 1, 1, 1) * noise
    if family == "sd3":
        velocity = pipeline.network(blend, timestep=1000 * t, **given).sample
    else:
        pipe = diffusers.FluxPipeline
        velocity = pipeline.network(
            pipe._pack_latents(blend, 2, 16, 8, 8),
            timestep=t,
            guidance=torch.ones(2),
            img_ids=pipe._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
            txt_ids=torch.zeros(512, 3),
            **given,
        ).sample
        velocity = pipe._unpack_latents(velocity, 64, 64, 8)
    expected = (velocity - (noise - z)).square().mean(dim=(1, 2, 3))
    denoiser, sigma = denoiser_of(pipeline)(pipeline.network), t / (1 - t)
    denoised = denoiser(z + sigma.view(-1, 1, 1, 1) * noise, sigma, given)
    found = denoiser.uniform_weight(sigma) * (denoised - z).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_reach_the_whole_network(pipelines, family):
    pipeline = pipelines[family]
    denoiser = denoiser_of(pipeline)(pipeline.network)
    noisy = torch.randn(2, pipeline.vae.config.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    denoiser(noisy, torch.tensor([0.5, 2.0]), conditioning(pipeline, ["a", "b"])).square().mean().backward()
    without = [name for name, each in pipeline.network.named_parameters() if each.grad is None or not each.grad.any()]
    # The last block of SD3 puts no text out and so asks nothing for it; softmax does not notice a bias of the keys.
    idle = "transformer_blocks.1.attn.add_q_proj" if family == "sd3" else "none"
    assert not [name for name in without if not name.endswith("_k.bias") and idle not in name]


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_denoiser_of_a_copy_uses_the_copy(pipelines, family):
    pipeline = pipelines[family]
    other = type(pipeline.network).from_config(pipeline.network.config)
    make = denoiser_of(pipeline)
    x, sigma = torch.ones(1, pipeline.vae.config.latent_channels, 8, 8), torch.tensor(1.0)
    given = conditioning(pipeline, ["a"])
    with torch.no_grad():
        assert not torch.allclose(make(pipeline.network)(x, sigma, given), make(other)(x, sigma, given))


def test_bfloat16_weights_take_float32_latents_and_large_sizes(folders):
    pipeline = load_pipeline(folders["sdxl"])
    network = pipeline.network.bfloat16()
    seen = []
    network.add_time_proj.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    given = conditioning(pipeline, ["a"], size=(1016, 1020))  # one number in bfloat16
    found = denoiser_of(pipeline)(network)(torch.ones(1, 4, 8, 8), torch.tensor(1.0), given)
    assert found.dtype == torch.float32
    assert seen[0].tolist() == [1016, 1020, 0, 0, 1016, 1020]


EMBEDDINGS = {name: torch.ones(2, 3) for name in ("encoder_hidden_states", "text_embeds", "pooled_projections")}


class TestConditioning:
    def test_names(self):
        assert network_conditioning("sd", EMBEDDINGS).keys() == {"encoder_hidden_states"}
        for family in ("sd3", "flux"):
            found = network_conditioning(family, EMBEDDINGS, torch.ones(2, 6))
            assert found.keys() == {"encoder_hidden_states", "pooled_projections"}
        found = network_conditioning("sdxl", EMBEDDINGS, torch.ones(2, 6))
        assert found.keys() == {"encoder_hidden_states", "added_cond_kwargs"}
        assert found["added_cond_kwargs"].keys() == {"text_embeds", "time_ids"}

    def test_time_ids_become_whole_numbers(self):
        found = network_conditioning("sdxl", EMBEDDINGS, torch.full((2, 6), 1023.9999))
        assert torch.equal(found["added_cond_kwargs"]["time_ids"], torch.full((2, 6), 1024))

    @pytest.mark.parametrize(
        ("family", "name"), [("sd", "encoder_hidden_states"), ("sdxl", "text_embeds"), ("sd3", "pooled_projections")]
    )
    def test_a_missing_embedding(self, family, name):
        rest = {key: value for key, value in EMBEDDINGS.items() if key != name}
        with pytest.raises(ValueError, match=rf"{family} needs the embeddings \['{name}'\]"):
            network_conditioning(family, rest, torch.ones(2, 6))

    @pytest.mark.parametrize("ids", [None, torch.ones(2, 5), torch.ones(6)])
    def test_sdxl_needs_its_sizes(self, ids):
        with pytest.raises(ValueError, match=r"sdxl needs time_ids, shape \(b, 6\)"):
            network_conditioning("sdxl", EMBEDDINGS, ids)


class TestSchedule:
    def test_the_schedulers_table_and_prediction_are_taken(self, pipelines):
        pipeline = pipelines["sd"]
        denoiser = denoiser_of(pipeline)(pipeline.network)
        alphas = pipeline.scheduler.alphas_cumprod.double()
        torch.testing.assert_close(denoiser.sigmas, ((1 - alphas) / alphas).sqrt())
        assert (denoiser.prediction, denoiser.model) == ("epsilon", pipeline.network)
        assert denoiser.sigma_max == pytest.approx(14.6146, abs=1e-3)  # Stable Diffusion's known number

    def test_another_prediction(self, pipelines):
        assert denoiser_of(pipelines["sd"], prediction="v")(torch.nn.Identity()).prediction == "v"

    def test_zero_terminal_snr_is_diffusers_own_rescaling(self, pipelines):
        pipeline = pipelines["sd2"]
        found = zero_terminal(pipeline.scheduler.alphas_cumprod)
        expected = (1 - rescale_zero_terminal_snr(pipeline.scheduler.betas.double())).cumprod(0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert found[-1] == 0
        assert torch.equal(zero_terminal(found), found)

    def test_zero_terminal_snr_ends_in_pure_noise_and_is_finite_everywhere(self, pipelines):
        pipeline = pipelines["sd2"]
        denoiser = denoiser_of(pipeline, zero_terminal_snr=True)(pipeline.network)
        assert denoiser.sigma_max == pytest.approx(4096, rel=1e-3)
        assert denoiser.sigma_min == pytest.approx(denoiser_of(pipeline)(None).sigma_min, rel=1e-6)
        sigma = denoiser.draw_sigma(torch.tensor([0.0, 0.5, 1 - 2**-24]))
        assert sigma[-1] == pytest.approx(4096, rel=1e-3)
        for weight in (denoiser.uniform_weight(sigma), WEIGHTINGS["min_snr"](denoiser, sigma)):
            assert weight.isfinite().all()
            assert (weight > 0).all()
        x = sigma.view(-1, 1, 1, 1) * torch.randn(3, 4, 8, 8)
        assert denoiser(x, sigma, conditioning(pipeline, ["a", "b", "c"])).isfinite().all()

    @pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "DDIMScheduler"])
    def test_a_scheduler_that_is_rescaled_already(self, pipelines, tmp_path, kind):
        pipeline = pipelines["sd2"]
        rescaled = getattr(diffusers, kind).from_config(pipeline.scheduler.config, rescale_betas_zero_snr=True)
        pipeline = replace(pipeline, scheduler=rescaled)
        once, twice = denoiser_of(pipeline)(None), denoiser_of(pipeline, zero_terminal_snr=True)(None)
        torch.testing.assert_close(once.sigmas, twice.sigmas, rtol=1e-3, atol=0)
        assert once.sigma_max == pytest.approx(4096, rel=1e-3)

    def test_epsilon_cannot_end_in_pure_noise(self, pipelines):
        pipeline = pipelines["sd"]
        with pytest.raises(ValueError, match=r"zero terminal signal-to-noise ratio .* predicts epsilon"):
            denoiser_of(pipeline, zero_terminal_snr=True)
        assert denoiser_of(pipeline, prediction="v", zero_terminal_snr=True)(None).prediction == "v"

    @pytest.mark.parametrize("asked", [{"prediction": "v"}, {"zero_terminal_snr": True}])
    def test_a_flow_has_neither(self, pipelines, asked):
        with pytest.raises(ValueError, match="sd3 predicts the velocity of a flow"):
            denoiser_of(pipelines["sd3"], **asked)

    @pytest.mark.parametrize(
        "scheduler",
        [diffusers.FlowMatchEulerDiscreteScheduler(), diffusers.EDMEulerScheduler()],
        ids=["flow", "edm"],
    )
    def test_a_scheduler_without_a_table(self, pipelines, scheduler):
        pipeline = replace(pipelines["sd"], scheduler=scheduler)
        with pytest.raises(ValueError, match="need a DDPM-type scheduler"):
            denoiser_of(pipeline)


class TestSamplingSigmas:
    def test_ddpm(self, pipelines):
        denoiser = denoiser_of(pipelines["sd"])(None)
        sigmas = sampling_sigmas(denoiser, 5)
        assert len(sigmas) == 6
        assert sigmas[0] == pytest.approx(denoiser.sigma_max)
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()

    def test_flow_is_shifted_as_the_scheduler_shifts(self):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        t = torch.linspace(1, 0, 9)[1:-1]
        expected = scheduler.shift * t / (1 + (scheduler.shift - 1) * t)
        found = sampling_sigmas(FlowDenoiser(None), 8, shift=3.0)
        torch.testing.assert_close(found[1:-1] / (1 + found[1:-1]), expected, rtol=1e-3, atol=1e-4)
        assert found[0] == pytest.approx(FlowDenoiser.sigma_max)
        assert (found.diff() < 0).all()

    def test_under_guidance_and_of_another_denoiser(self):
        flow = GuidedDenoiser(FlowDenoiser(None), 2.0, {"text": torch.zeros(1)})
        assert torch.equal(sampling_sigmas(flow, 3), sampling_sigmas(FlowDenoiser(None), 3))
        edm = EDMDenoiser(None)
        assert sampling_sigmas(edm, 3)[0] == pytest.approx(edm.sigma_max)

    @pytest.mark.parametrize("shift", [0.5, 0.0, math.nan])
    def test_a_shift_below_one(self, shift):
        with pytest.raises(ValueError, match="shift is"):
            sampling_sigmas(FlowDenoiser(None), 3, shift=shift)

    def test_no_steps_and_too_many(self):
        with pytest.raises(ValueError, match="0"):
            sampling_sigmas(FlowDenoiser(None), 0)
        with pytest.raises(ValueError, match="use at most 3"):
            sampling_sigmas(DDPMDenoiser(None, torch.tensor([0.8, 0.5, 0.2])), 4)


class TestFlux:
    def test_packing_is_diffusers_own(self):
        x = torch.randn(2, 16, 6, 10)
        packed = diffusers.FluxPipeline._pack_latents(x, 2, 16, 6, 10)
        assert torch.equal(pack(x), packed)
        assert torch.equal(unpack(packed, 6, 10), x)

    def test_odd_sides(self):
        with pytest.raises(ValueError, match="latents are 7 x 8; Flux takes even sides"):
            pack(torch.zeros(1, 16, 7, 8))

    def test_guidance_is_one_unless_given(self, pipelines):
        pipeline = pipelines["flux"]
        network, given = FluxNetwork(pipeline.network, True), conditioning(pipeline, ["a", "b"])
        x, t = torch.ones(2, 16, 4, 4), torch.full((2,), 500.0)
        with torch.no_grad():
            assert torch.equal(network(x, t, **given), network(x, t, **given, guidance=torch.ones(2)))
            assert not torch.allclose(network(x, t, **given), network(x, t, **given, guidance=torch.full((2,), 3.5)))

    def test_a_transformer_without_guidance(self, tmp_path):
        folder = tiny.make(tmp_path / "schnell", "flux", network={"guidance_embeds": False})
        pipeline = load_pipeline(folder)
        denoiser, given = denoiser_of(pipeline)(pipeline.network), conditioning(pipeline, ["a"])
        assert denoiser(torch.ones(1, 16, 4, 4), torch.tensor(1.0), given).isfinite().all()

    def test_the_transformer_is_wrapped_and_not_changed(self, pipelines):
        network = pipelines["flux"].network.eval()
        names = [name for name, _ in network.named_modules()]
        wrapped = FluxNetwork(network, True)
        assert wrapped.transformer is network
        assert not wrapped.training
        assert [name for name, _ in network.named_modules()] == names
