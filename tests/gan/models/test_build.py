"""Networks by name: shapes, conditions, what is refused."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lsdr.gan.models.build import build_players
from lsdr.gan.models.presets import PRESETS, default_model
from lsdr.gan.models.residual import Residual
from lsdr.regularizers.activation_standardization import ActivationStandardization

# The large presets are the small ones with other numbers.
SMALL = [name for name in PRESETS if not name.endswith("-small")]
SHAPES = {"points": [(2,), (5,)], "images": [(1, 16, 16), (3, 14, 28)]}
NORMS = {"standardize": ActivationStandardization, "batch": nn.BatchNorm1d | nn.BatchNorm2d}


def players(model, shape, normalization="default", **options):
    torch.manual_seed(0)
    both = {"normalization": normalization, "discriminator_normalization": normalization}
    return build_players(model, shape, **both, **options)


def inputs(generator, shape, count=4):
    drawn = torch.Generator().manual_seed(1)
    z = torch.randn(count, generator.latent_dim, generator=drawn)
    return z, torch.randn(count, *shape, generator=drawn), torch.rand(count, generator=drawn)


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("denoising", [False, True])
def test_every_preset_plays_on_every_shape_and_with_every_normalization(model, denoising):
    preset = PRESETS[model]
    if denoising and not preset.denoising:
        with pytest.raises(ValueError, match="published one and takes no noisy example"):
            build_players(model, SHAPES[preset.data][0], denoising=True)
        return
    for place, shape in enumerate(SHAPES[preset.data]):
        for normalization in preset.normalizations if place == 0 else ["default"]:
            packing = 1 if denoising else 2
            generator, discriminator = players(
                model, shape, normalization, packing=packing, level=True, denoising=denoising
            )
            z, noisy, level = inputs(generator, shape)
            fake = generator(z, noisy, level) if denoising else generator(z)
            assert fake.shape == noisy.shape
            assert preset.data == "points" or float(fake.detach().abs().max()) <= 1
            packed = fake.reshape(4 // packing, packing * shape[0], *shape[1:])
            beside = noisy if denoising else None
            logits = discriminator(packed, beside, level[: len(packed)])
            assert logits.shape == (len(packed),)
            # a penalty on the gradient can be trained
            (gradient,) = torch.autograd.grad(logits.sum(), packed, create_graph=True)
            (logits.mean() + gradient.square().sum()).backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in discriminator.parameters())
            for network in (generator, discriminator):
                for other, kind in NORMS.items():
                    found = any(isinstance(each, kind) for each in network.modules())
                    assert normalization == "default" or found == (normalization == other)
                scaled = any(hasattr(each, "parametrizations") for each in network.modules())
                assert scaled == (normalization == "magnitude_preserving")


@pytest.mark.parametrize("model", [name for name in SMALL if PRESETS[name].denoising])
def test_every_parameter_is_trained(model):
    preset = PRESETS[model]
    shape = SHAPES[preset.data][0]
    for normalization in preset.normalizations:
        generator, discriminator = players(model, shape, normalization, denoising=True)
        z, noisy, level = inputs(generator, shape, 8)
        named = [*generator.named_parameters(prefix="g"), *discriminator.named_parameters(prefix="d")]
        optimizer = torch.optim.SGD([parameter for _, parameter in named], lr=1e-4)
        for _ in range(2):  # in front of Fixup's zeros nothing moves in the first step
            optimizer.zero_grad()
            discriminator(generator(z, noisy, level), noisy, level).sum().backward()
            optimizer.step()
        assert not [name for name, parameter in named if not parameter.grad.abs().max() > 0], normalization


def test_published_sizes_and_initial_weights():
    count = {}
    for model, shape in (("pacgan-toy", (2,)), ("stacked-dcgan", (3, 28, 28)), ("stacked-dcgan", (3, 32, 32))):
        generator, discriminator = players(model, shape)
        count[model, shape] = [sum(p.numel() for p in each.parameters()) for each in (generator, discriminator)]
        for network in (generator, discriminator):
            for layer in network.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    assert layer.bias is None or not layer.bias.any()
                    assert layer.weight.numel() < 1000 or abs(float(layer.weight.detach().std()) - 0.02) < 0.002
    # G: four layers of 400 with scale and shift, none with bias but the last; D: 200 maxima of 5 affine functions
    assert count["pacgan-toy", (2,)] == [
        2 * 400 + 3 * 400**2 + 4 * 2 * 400 + 400 * 2 + 2,
        3 * 1000 + 2 * 201 * 1000 + 201,
    ]
    assert count["stacked-dcgan", (3, 28, 28)][0] == count["stacked-dcgan", (3, 32, 32)][0] == 287_875
    quarter, half = (players(name, (3, 28, 28))[1] for name in ("stacked-dcgan", "stacked-dcgan-half"))
    assert [each.out_channels for each in quarter.modules() if isinstance(each, nn.Conv2d)] == [2, 4, 8]
    assert [each.out_channels for each in half.modules() if isinstance(each, nn.Conv2d)] == [4, 8, 16]
    assert sum(isinstance(each, nn.BatchNorm2d) for each in quarter.modules()) == 3
    generator, discriminator = players("pacgan-toy", (2,), packing=4)
    assert generator.latent_dim == 2
    assert discriminator.stem[0].in_features == 8
    x = torch.randn(3, 8)
    stem = discriminator.stem
    assert torch.equal(stem(x), stem[0](x).unflatten(1, (200, 5)).amax(2))


def test_plain_networks_for_points_keep_the_variance():
    for model, making, judging in (("mlp", 2, 2), ("mlp-deep", 8, 5), ("mlp-large", 3, 3)):
        generator, discriminator = players(model, (2,), packing=8)
        for network, inputs, layers in ((generator, 2, making), (discriminator, 16, judging)):
            hidden = [each for each in network.modules() if isinstance(each, nn.Linear)]
            assert len(hidden) == layers + 1
            for layer in hidden[1:-1]:
                expected = (2 / (1 + 0.2**2) / layer.in_features) ** 0.5
                assert abs(float(layer.weight.detach().std()) / expected - 1) < 0.05
            assert not any(layer.bias.any() for layer in hidden)
            assert hidden[0].in_features == inputs


def test_normalizations_stand_where_they_should():
    for model, shape in (("residual-mlp", (2,)), ("resnet-tiny", (3, 8, 8)), ("r3gan-tiny", (3, 8, 8))):
        for network in players(model, shape, "standardize"):
            blocks = [each for each in network.modules() if isinstance(each, Residual)]
            assert blocks
            for block in blocks:
                kinds = [type(each) for each in block.branch]
                assert kinds.index(ActivationStandardization) == 0
                assert kinds.count(ActivationStandardization) == 1
        for network in players(model, shape, "fixup"):
            blocks = [each for each in network.modules() if isinstance(each, Residual)]
            assert all(
                not [each for each in block.branch if hasattr(each, "weight")][-1].weight.any() for block in blocks
            )
    generator, discriminator = build_players("resnet-tiny", (3, 8, 8))
    assert any(isinstance(each, nn.BatchNorm2d) for each in generator.modules())
    assert not any(isinstance(each, nn.BatchNorm2d) for each in discriminator.modules())


@pytest.mark.parametrize(("model", "shape"), [("mlp", (2,)), ("resnet-tiny", (1, 8, 8)), ("pacgan-toy", (2,))])
def test_the_discriminator_is_told_the_level(model, shape):
    _, discriminator = players(model, shape, level=True)
    discriminator.eval()
    x = torch.randn(3, *shape)
    told = [discriminator(x, level=torch.full((3,), level)) for level in (0.0, 1 / 128, 0.5, 1.0)]
    assert all(not torch.equal(a, b) for k, a in enumerate(told) for b in told[:k])
    torch.testing.assert_close(discriminator(x), told[0])  # none is no noise
    _, plain = players(model, shape)
    with pytest.raises(ValueError, match="build it with level=True"):
        plain(x, level=torch.zeros(3))


@pytest.mark.parametrize("model", ["dcgan", "resnet-tiny", "r3gan-tiny"])
def test_no_pixel_of_the_noisy_image_is_lost(model):
    generator, discriminator = players(model, (2, 8, 8), "none", denoising=True)
    z, noisy, level = inputs(generator, (2, 8, 8), 1)
    jacobian = torch.autograd.functional.jacobian(lambda x: generator(z, x, level), noisy).flatten(0, 3).flatten(1)
    assert torch.linalg.matrix_rank(jacobian.double()) == 2 * 8 * 8
    with pytest.raises(ValueError, match="give it a noisy example"):
        generator(z)
    with pytest.raises(ValueError, match="give it the noisier example"):
        discriminator(noisy)
    generator, discriminator = players(model, (2, 8, 8))
    with pytest.raises(ValueError, match="from latents alone"):
        generator(z, noisy)
    with pytest.raises(ValueError, match="judges x alone"):
        discriminator(noisy, noisy)


def test_what_cannot_be_built_is_refused_by_name():
    cases = [
        (("mpl", (2,)), {}, "there is no model 'mpl'; for points there are mlp, "),
        (("dcgan", (2,)), {}, "is for images, not points"),
        (("mlp", (3, 8, 8)), {}, "is for points, not images"),
        (("mlp", (2,)), {"normalization": "fixup"}, "no residual branches"),
        (("dcgan", (3, 8, 8)), {"normalization": "magnitude_preserving"}, "in its generator, not 'magnitude"),
        (("mlp", (2,)), {"discriminator_normalization": "layer"}, "no normalization 'layer'.* in its discriminator"),
        (("dcgan", (3, 9, 8)), {}, "even sides of at least 8, got 9x8"),
        (("dcgan", (3, 6, 8)), {}, "even sides of at least 8, got 6x8"),
        (("mlp", (2, 2)), {}, "got shape"),
        (("mlp", (2,)), {"latent": 0}, "at least one latent dimension"),
        (("mlp", (2,)), {"packing": 0}, "at least one latent dimension"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            build_players(*arguments, **options)


def test_names_need_no_torch_and_choose_themselves():
    code = "import sys; import lsdr.gan.models.presets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for shape in ((2,), (7,), (1, 8, 8), (3, 62, 64)):
        build_players(default_model(shape), shape)
    for name, preset in PRESETS.items():
        assert {preset.generator, preset.discriminator} <= set(preset.normalizations)
        if name.endswith("-small"):
            generator, discriminator = build_players(name, (1, 8, 8))
            assert discriminator(generator(torch.randn(2, generator.latent_dim))).shape == (2,)
