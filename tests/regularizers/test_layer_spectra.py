"""`LayerSpectra`: extra passes through a network that nobody else notices."""

import importlib.util
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from torch import nn

from lsdr.fourier.radial_power_spectrum import radial_power_spectrum
from lsdr.regularizers.attach import attach
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator

_spec = importlib.util.spec_from_file_location("discriminated", Path(__file__).with_name("discriminated.py"))
discriminated = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(discriminated)
learnt, net, smooth = discriminated.learnt, discriminated.net, discriminated.smooth

SIGMA = torch.tensor(0.4, dtype=torch.float64)


def discriminator(*arguments, **settings):
    return SpectralDiscriminator(features=(LayerSpectra(*arguments, **settings),), weight=1.0)


def coordinates(feature, model, images, forward):
    return feature.coordinates(images, feature.select(model), forward)


def test_coordinates_by_their_formula():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 2)).double()
    images = smooth(5, 2, 9, 8)
    found = coordinates(LayerSpectra(["0", "1"]), model, images, model)
    expected = []
    for maps in (model[0](images), model(images)):
        maps = (maps - maps.mean((2, 3), keepdim=True)) / maps.std((2, 3), keepdim=True, correction=0)
        expected.append((radial_power_spectrum(maps, corners=True).power[:, 1:] + 1e-6).log())
    torch.testing.assert_close(found.values, torch.cat(expected, 1)[..., None], rtol=1e-4, atol=1e-4)
    # Every layer counts alike, however many rings it has.
    torch.testing.assert_close(found.weight[: expected[0].shape[1]].sum(), torch.tensor(1.0).double())
    torch.testing.assert_close(found.weight.sum(), torch.tensor(2.0).double())
    # Blind to each channel's scale and offset.
    model[1].weight.data *= torch.tensor([0.5, 1, 2, 3]).view(-1, 1, 1, 1)
    model[1].bias.data += 2
    scaled = coordinates(LayerSpectra(["0", "1"]), model, images, model)
    torch.testing.assert_close(scaled.values, found.values, rtol=1e-3, atol=1e-3)


def test_dead_and_constant_maps_stay_finite():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).double()
    model[0].bias.data[0] = -100
    images = smooth(5, 2, 9, 8).requires_grad_()
    for _ in range(2):
        found = coordinates(LayerSpectra("1"), model, images, model).values
        (gradient,) = torch.autograd.grad(found.sum(), images)
        assert found.isfinite().all()
        assert gradient.isfinite().all()
        model[0].bias.data[:] = -100


class Tokens(nn.Module):
    """Patches as tokens, with a class token if asked for."""

    def __init__(self, extra=0):
        super().__init__()
        self.embed, self.extra = nn.Conv2d(2, 6, 2, stride=2), extra
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).mT
        return self.norm(torch.cat([tokens, tokens[:, : self.extra]], 1))


def test_tokens_are_a_grid_of_the_images_proportions():
    model, images = Tokens().double(), smooth(5, 2, 8, 12)
    found = coordinates(LayerSpectra("norm"), model, images, model).values
    maps = model(images).mT.unflatten(2, (4, 6))
    maps = (maps - maps.mean((2, 3), keepdim=True)) / maps.std((2, 3), keepdim=True, correction=0)
    expected = (radial_power_spectrum(maps, corners=True).power[:, 1:] + 1e-6).log()
    torch.testing.assert_close(found[..., 0], expected, rtol=1e-4, atol=1e-4)
    sound = smooth(3, 2, 16)
    for layer in (nn.Linear(16, 4), nn.Conv1d(2, 4, 1)):  # (b, n, c) and (b, c, n)
        model = nn.Sequential(layer).double()
        assert coordinates(LayerSpectra("0"), model, sound, model).values.shape[1] == (
            1 if layer.__class__ is nn.Linear else 8
        )


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (Tokens(extra=1), "norm"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), "1"),
        (nn.Sequential(nn.Unflatten(0, (1, 5)), nn.Flatten(0, 1), nn.Conv2d(2, 2, 1), nn.Flatten(0, 1)), "3"),
    ],
)
def test_outputs_without_positions_are_refused(model, layers):
    model, images = model.double(), smooth(5, 2, 8, 12)
    with pytest.raises(ValueError, match=r"returned shape .* select a layer whose output has positions"):
        coordinates(LayerSpectra(layers), model, images, model)


def test_layers_that_are_not_run_and_unknown_ones_are_named():
    model = nn.ModuleDict({"used": nn.Conv2d(2, 2, 1), "idle": nn.Conv2d(2, 2, 1)}).double()
    with pytest.raises(RuntimeError, match=r"\['idle'\] were not run"):
        coordinates(LayerSpectra(["used", "idle"]), model, smooth(3, 2, 8, 8), model["used"])
    with pytest.raises(ValueError, match="no layer matches 'nothing'"), attach(model, discriminator("nothing")):
        pass
    with attach(model, discriminator("used")) as penalty:
        data = smooth(20, 2, 8, 8)
        penalty(denoised=data.clone().requires_grad_(), clean=data, sigma=SIGMA)
        with pytest.raises(TypeError, match="needs denoiser=; call penalty"):
            penalty(denoised=data.clone().requires_grad_(), clean=data, sigma=SIGMA)


def test_looking_into_the_network_is_invisible():
    """Flags, parameters, buffers, `forward`, other terms' features and the state of dropout stay as they are."""
    model = net(dropout=0.5)
    block = model.model.mid_block
    block.register_buffer("runs", torch.zeros(()))
    clean = smooth(24, 3, 8, 8)
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    decorrelation = SpectralDecorrelation(layers="*mid_block", weight=1.0)
    generator = torch.Generator().manual_seed(0)
    with attach(model, discriminator("*mid_block*"), decorrelation) as penalty, attach(model, decorrelation) as alone:
        for step in range(4):
            torch.manual_seed(step)
            denoised = model(clean + 0.4 * smooth(24, 3, 8, 8, seed=step), SIGMA)
            before = torch.get_rng_state()
            flags = [module.training for module in model.modules()]
            state = {name: value.clone() for name, value in model.state_dict().items()}
            total = penalty(denoiser=model, denoised=denoised, clean=clean, sigma=SIGMA, generator=generator)
            assert torch.equal(torch.get_rng_state(), before)
            assert [module.training for module in model.modules()] == flags
            assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
            assert not any("forward" in module.__dict__ for module in model.modules())
            assert all(each.grad is None for each in model.parameters())
            assert not frozen.requires_grad
            assert alone() == penalty.values["SpectralDecorrelation/model.mid_block"]
    assert penalty.values["SpectralDiscriminator/layers"] > 0
    total.backward()
    assert frozen.grad is None
    assert sum(each.grad.norm() for each in model.parameters() if each.grad is not None) > 0


def test_a_forward_of_its_own_is_put_back():
    model = nn.Sequential(nn.Conv2d(2, 2, 1)).double()
    inner = model[0].forward
    model[0].forward = own = lambda x: inner(x)
    coordinates(LayerSpectra("0"), model, smooth(3, 2, 8, 8), model)
    assert model[0].__dict__["forward"] is own


def test_own_network_sees_both_images_under_the_same_noise():
    model, clean = net(), smooth(20, 3, 8, 8)
    seen = []

    def denoiser(x, sigma, conditioning):
        seen.append((x.detach().clone(), sigma, conditioning))
        return model(x, sigma)

    labels = torch.arange(20)
    context = {"denoiser": denoiser, "conditioning": {"labels": labels, "scale": 3.0}}
    feature = LayerSpectra("*mid_block*", level=0.25, fraction=0.3)
    with learnt(model, SpectralDiscriminator(features=(feature,), noise="snr", learn=16), clean, **context) as penalty:
        for _ in range(3):  # of 20 images 6 count for the spread
            assert penalty.values["SpectralDiscriminator/outside"] == 0
            seen.clear()
            penalty(denoised=(2 * clean).requires_grad_(), clean=clean, sigma=SIGMA, **context)
    assert penalty.values["SpectralDiscriminator/outside"] > 0
    (first, level, conditioning), (second, *_) = seen
    assert len(first) == 7
    torch.testing.assert_close(second - first, clean[::3])
    assert 0.2 < (first - clean[::3]).std() < 0.3
    assert torch.equal(level, torch.full((7,), 0.25, dtype=torch.float64))
    assert torch.equal(conditioning["labels"], labels[::3])
    assert conditioning["scale"] == 3.0


def test_decoder_of_an_autoencoder_and_a_transformer():
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=2, sample_size=8)
    transformer = DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=2, num_layers=1, sample_size=8, norm_num_groups=2
    )
    for encoder in (vae.decoder, transformer):
        encoder.requires_grad_(False)
    latents = smooth(20, 2, 8, 8, dtype=torch.float32)

    def denoiser(x, sigma, conditioning):
        return transformer(x, 1000 * sigma, class_labels=conditioning).sample[:, :2]

    context = {"denoiser": denoiser, "conditioning": torch.arange(20)}
    regularizer = SpectralDiscriminator(
        features=(LayerSpectra("mid_block*", vae.decoder), LayerSpectra("transformer_blocks.*")),
        domain="latents",
        weight=1.0,
    )
    with learnt(transformer, regularizer, latents, **context) as penalty:
        estimate = (2 * latents.roll(1, 0)).requires_grad_()
        penalty(denoised=estimate, clean=latents, sigma=SIGMA, **context).backward()
        values = penalty.values
    assert estimate.grad.norm() > 0
    assert values["SpectralDiscriminator/layers"] > 0
    assert values["SpectralDiscriminator/layers-2"] > 0
    assert vae.decoder.training
