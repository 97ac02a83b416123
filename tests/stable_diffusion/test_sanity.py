"""Checks before the first step: against networks that are right by construction, and latents spoilt on purpose."""

import importlib.util
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from lsdr import runs
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.stable_diffusion.network_sanity import check_attention, check_network, knowledge
from lsdr.stable_diffusion.sanity import Check, SanityError, check_data, check_latents, check_vae, conclude

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS = torch.cumprod(1 - BETAS, 0)


class Signs(nn.Module):
    """The best denoiser of latents whose entries are 1 or -1: D = tanh(x / sigma^2), in any parametrisation."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction

    def forward(self, x, timestep, **conditioning):
        if self.prediction == "flow":
            t = (timestep / 1000).view(-1, 1, 1, 1)
            x0 = torch.tanh(x / (1 - t) / (t / (1 - t)) ** 2)
            return (x - x0) / t
        alpha = ALPHAS[timestep.round().long()].view(-1, 1, 1, 1)
        x0 = torch.tanh(x / alpha.sqrt() / ((1 - alpha) / alpha))
        noise = (x - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return {"epsilon": noise, "v": alpha.sqrt() * noise - (1 - alpha).sqrt() * x0, "sample": x0}[self.prediction]


def denoiser(prediction, said=None):
    network = Signs(prediction)
    return FlowDenoiser(network) if prediction == "flow" else DDPMDenoiser(network, ALPHAS, said or prediction)


def signs(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 4, 8, 8), (4, 4, 8, 12)]
    return [(scale * torch.randn(shape, generator=generator).sign(), {}) for shape in shapes]


def smooth():
    """Latents of another kind: unit deviation, but nearly constant over each channel."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.8, 1.2, 8).view(1, 1, 1, 8)
    return [(torch.randn(8, 4, 1, 1, generator=generator) * ramp.expand(8, 4, 8, 8), {})]


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow"])
def test_a_network_knows_the_latents_it_was_made_for(prediction):
    found = check_network(denoiser(prediction), signs())
    assert found.verdict == "ok", found.message
    assert found.evidence["error_over_linear"] < 0.5


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
@pytest.mark.parametrize("scale", [4.0, 0.2])
def test_a_wrong_scale_is_refused_and_the_right_one_named(prediction, scale):
    found = check_network(denoiser(prediction), signs(scale))
    assert found.verdict == "refused"
    assert "scaling_factor" in found.message
    named = min(found.evidence["scales"], key=lambda each: found.evidence["scales"][each]["ratio"])
    assert float(named) * scale == pytest.approx(1, rel=0.5)


@pytest.mark.parametrize(("is_", "said"), [("epsilon", "v"), ("v", "epsilon"), ("epsilon", "sample")])
def test_a_scheduler_that_says_another_prediction_is_found_out(is_, said):
    found = check_network(denoiser(is_, said), signs())
    assert found.verdict == "refused"
    assert f"--prediction {is_}" in found.message


def test_latents_of_another_vae_are_refused():
    found = check_network(denoiser("epsilon"), smooth())
    assert found.verdict == "refused"
    assert "take VAE and network from one pipeline" in found.message


def test_an_untrained_network_is_said_to_be_so_and_may_be_trained():
    found = check_network(DDPMDenoiser(lambda x, timestep: 0.1 * x.flip(-1), ALPHAS), signs())
    assert found.verdict == "warning"
    assert "untrained" in found.message


def test_a_network_that_is_not_finite_or_takes_other_shapes_is_refused():
    broken = check_network(DDPMDenoiser(lambda x, timestep: x * torch.nan, ALPHAS), signs())
    assert (broken.verdict, broken.check) == ("refused", "network")
    other = check_network(DDPMDenoiser(nn.Conv2d(5, 5, 1), ALPHAS), signs())
    assert other.verdict == "refused"
    assert "mixed" in other.message


def test_the_linear_guess_is_the_wiener_filters_error():
    """For Gaussian white latents no network beats the linear guess, and the best one reaches it."""
    generator = torch.Generator().manual_seed(1)
    latents = [(torch.randn(16, 4, 16, 16, generator=generator), {})]
    best = DDPMDenoiser(lambda x, timestep: torch.zeros_like(x), ALPHAS, "v")  # D = x / (1 + sigma^2)
    assert knowledge(best, latents).ratio == pytest.approx(1, abs=0.03)
    assert knowledge(best, latents).explained == pytest.approx(0, abs=1e-6)


def test_latents_with_the_deviation_that_the_scale_is_for_pass():
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(8, 4, 16, 16, generator=generator)
    falling = white.cumsum(-1).cumsum(-2)
    falling = (falling - falling.mean((2, 3), keepdim=True)) / falling.std()
    size, spectrum = check_latents([falling / falling.std()])
    assert (size.verdict, spectrum.verdict) == ("ok", "ok")
    assert spectrum.evidence["slope"] < -1
    size, spectrum = check_latents([white])
    assert (size.verdict, spectrum.verdict) == ("ok", "warning")
    assert abs(spectrum.evidence["slope"]) < 0.15


def test_a_wrong_scale_is_refused_unless_the_network_knows_the_latents():
    generator = torch.Generator().manual_seed(0)
    latents = [
        torch.randn(4, 4, 8, 8, generator=generator) / 0.18215,
        torch.randn(2, 4, 8, 4, generator=generator) / 0.18215,
    ]
    size, _ = check_latents(latents, scaling_factor=1.0)
    assert size.verdict == "refused"
    wanted = size.message.split("which ")[1].split()[0]
    assert float(wanted) == pytest.approx(0.18215, rel=0.1)
    assert check_latents(latents, scaling_factor=1.0, working=True)[0].verdict == "warning"


def test_latents_that_are_not_finite_are_refused():
    latents = torch.randn(1, 4, 8, 8)
    latents[0, 0, 0, 0] = torch.inf
    assert [check.verdict for check in check_latents([latents])] == ["refused"]


def test_a_channel_far_from_zero_is_a_warning():
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents[:, 2] += 6
    size, _ = check_latents([latents])
    assert size.verdict == "warning"
    assert "mean" in size.message


class Halves(nn.Module):
    """Stands in for a VAE through the functions that the check calls."""


def test_a_vae_is_judged_by_what_it_gives_back(monkeypatch):
    from lsdr.stable_diffusion import sanity

    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    monkeypatch.setattr(sanity, "encode_pixels", lambda vae, pixels: (pixels, torch.zeros_like(pixels)))
    for keeps, verdict in ((1.0, "ok"), (0.3, "warning"), (torch.inf, "refused")):
        monkeypatch.setattr(sanity, "decode_latents", lambda vae, z, keeps=keeps: keeps * z)
        found = check_vae(nn.Identity(), [picture])
        assert found.verdict == verdict, keeps
        if verdict != "refused":
            mean = picture.mean(dim=(0, 2, 3), keepdim=True)
            share = ((1 - keeps) ** 2 * picture.square().sum()) / (picture - mean).square().sum()
            assert found.evidence["lost_share"] == pytest.approx(float(share), rel=1e-5)


def test_a_real_but_random_vae_is_warned_of():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4).eval()
    found = check_vae(vae, [torch.rand(1, 3, 16, 16) * 2 - 1])
    assert found.verdict == "warning"


def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            block_out_channels=(8,),
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
        ).eval()


def test_attention_that_overflows_float16_is_found_and_named():
    model, layer = unet(), "mid_block.attentions.0.transformer_blocks.0.attn2"
    latents = [(torch.randn(2, 4, 8, 8), {"encoder_hidden_states": torch.randn(2, 5, 8)})]
    assert check_attention(model, DDPMDenoiser(model, ALPHAS), latents, "fp16").verdict == "ok"
    with torch.no_grad():
        model.get_submodule(layer).to_q.weight.mul_(1e6)
    for precision, verdict in (("fp16", "refused"), ("bf16", "warning"), ("fp32", "warning")):
        found = check_attention(model, DDPMDenoiser(model, ALPHAS), latents, precision)
        assert found.verdict == verdict
        assert found.evidence["layer"] == layer
        assert "bf16" in found.message
    before = dict(found.evidence)
    with torch.no_grad():  # within the headroom, not beyond
        model.get_submodule(layer).to_q.weight.mul_(20_000 / before["logit_max"])
    near = check_attention(model, DDPMDenoiser(model, ALPHAS), latents, "fp16")
    assert near.verdict == "warning"
    assert "factor 3.3" in near.message


def test_problems_of_the_data_are_told_with_names():
    checks = check_data(
        [
            {"kind": "no_caption", "count": 5, "examples": list("abcde")},
            {"kind": "ignored", "count": 1, "examples": ["x"]},
        ],
        15,
    )
    assert [check.verdict for check in checks] == ["warning"]
    assert "5 left out as no caption (a, b, c, ...); 15 images remain" in checks[0].message
    assert check_data([], 20)[0].verdict == "ok"
    assert check_data([{"kind": "repeated_folder", "count": 1, "examples": ["x"]}], 20)[0].verdict == "ok"
    (long,) = check_data([{"kind": "long_caption", "count": 2, "examples": ["a", "b"]}], 20)
    assert long.verdict == "warning"
    assert long.message.startswith("2 used as long caption (a, b)")


def test_refusals_stop_unless_told_otherwise_and_are_written_down(tmp_path):
    checks = [Check("a", "ok", "fine"), Check("b", "refused", "do this", {"n": 1.5})]
    with pytest.raises(SanityError, match="b: do this"):
        conclude(checks, tmp_path, refuse=True)
    conclude(checks, tmp_path, refuse=False)
    assert runs.read_json(tmp_path / "sanity.json")[1] == {
        "check": "b",
        "verdict": "refused",
        "message": "do this",
        "evidence": {"n": 1.5},
    }
    conclude(checks[:1], tmp_path, refuse=True)
