"""Latents have the network's units, and the VAE is left as it was."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lsdr.stable_diffusion.latents import decode_latents, encode_pixels
from lsdr.stable_diffusion.pipeline import load_pipeline

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


@pytest.fixture(scope="module")
def vaes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {family: load_pipeline(tiny.make(folder / family, family)).vae for family in ("sd", "sd3")}


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    folder = tiny.photos(tmp_path_factory.mktemp("photos"), 12, None, sizes=((64, 64),), seed=3)
    images = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_mean_and_deviation_are_the_posteriors_shifted_and_scaled(vaes, pixels, family):
    vae = vaes[family]
    mean, std = encode_pixels(vae, pixels)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    shift = {"sd": 0.0, "sd3": 0.0609}[family]
    scale = {"sd": 0.18215, "sd3": 1.5305}[family]
    torch.testing.assert_close(mean, (posterior.mean - shift) * scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, posterior.std * scale, rtol=1e-4, atol=1e-6)
    assert mean.shape == (12, 4 if family == "sd" else 16, 8, 8)
    assert not mean.requires_grad


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_the_tiny_vaes_latents_of_photographs_are_standard(vaes, pixels, family):
    mean, std = encode_pixels(vaes[family], pixels)
    assert mean.mean(dim=(0, 2, 3)).abs().max() < 0.3
    assert (mean.std(dim=(0, 2, 3)) - 1).abs().max() < 0.3
    assert std.mean() == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_decoding_undoes_the_scale_and_the_shift(vaes, pixels, family):
    vae = vaes[family]
    mean, _ = encode_pixels(vae, pixels)
    with torch.no_grad():
        expected = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    found = decode_latents(vae, mean)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - pixels).square().mean() < 0.8 * pixels.var()  # the last layer is fitted to the photographs


def test_a_vae_with_a_mean_and_a_deviation_for_each_channel():
    torch.manual_seed(0)
    kind = {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 2}
    vae = AutoencoderKL(**kind, scaling_factor=0.5, latents_mean=(1.0, -2.0), latents_std=(2.0, 4.0)).eval()
    pixels = torch.rand(1, 3, 8, 8)
    mean, std = encode_pixels(vae, pixels)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    expected = torch.stack([(posterior.mean[:, 0] - 1) * 0.25, (posterior.mean[:, 1] + 2) * 0.125], dim=1)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(std[:, 1], posterior.std[:, 1] * 0.125)
    with torch.no_grad():
        decoded = vae.decode(posterior.mean).sample.clamp(-1, 1)
    torch.testing.assert_close(decode_latents(vae, mean), decoded, rtol=1e-4, atol=1e-5)


def test_one_image_at_a_time_and_everything_left_as_it_was(vaes, pixels):
    vae = vaes["sd"]
    batches = []
    hook = vae.encoder.register_forward_pre_hook(lambda module, given: batches.append((len(given[0]), vae.training)))
    vae.train()
    try:
        encode_pixels(vae, pixels[:3])
        assert batches == [(1, False)] * 3
        assert vae.training
        assert vae.use_slicing is False
        vae.enable_slicing()
        decode_latents(vae, torch.zeros(2, 4, 4, 4))
        assert vae.use_slicing is True
    finally:
        hook.remove()
        vae.disable_slicing()
        vae.eval()


def test_float32_whatever_autocast_says(vaes, pixels):
    expected = encode_pixels(vaes["sd"], pixels[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encode_pixels(vaes["sd"], pixels[:2])
        decoded = decode_latents(vaes["sd"], found[0])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(decoded, decode_latents(vaes["sd"], expected[0]))


def test_pixels_of_another_type_are_cast_to_the_vaes(vaes, pixels):
    mean, _ = encode_pixels(vaes["sd"], pixels[:1].double())
    assert mean.dtype == torch.float32
    assert decode_latents(vaes["sd"], mean.double()).dtype == torch.float32


def test_pixels_out_of_range_come_back_within_it(vaes):
    assert decode_latents(vaes["sd"], 50 * torch.randn(1, 4, 4, 4)).abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 3, 60, 64), (1, 3, 64, 12), (0, 3, 64, 64)])
def test_sides_that_the_vae_cannot_halve(vaes, shape):
    with pytest.raises(ValueError, match="height and width must be multiples of 8"):
        encode_pixels(vaes["sd"], torch.zeros(shape))
