"""Magnitude-preserving layers."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lsdr.gan.magnitude_preserving import (
    AppendOne,
    activation_gain,
    magnitude_preserving,
    magnitude_preserving_sum,
)
from lsdr.gan.models.build import build_players
from lsdr.gan.models.parts import Parts
from lsdr.gan.models.residual import Residual
from lsdr.layers.weight import read_weight


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return magnitude_preserving(nn.Conv2d(8, 6, 3, padding=1, groups=2, bias=False), gain=1.5)


def original(layer):
    return layer.parametrizations.weight.original


def test_weights_have_the_size_that_was_asked_for_whatever_is_stored(layer):
    for _ in range(2):
        norms = read_weight(layer).flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.full((6,), 1.5))
        x = torch.randn(2, 8, 5, 5)
        stored = original(layer).detach()
        expected = F.conv2d(x, 1.5 * stored / stored.flatten(1).norm(dim=1)[:, None, None, None], padding=1, groups=2)
        torch.testing.assert_close(layer(x).detach(), expected)
        original(layer).data.mul_(torch.rand(6, 1, 1, 1) * 40)


def test_what_is_stored_is_forced_to_size_once_in_training_and_never_in_evaluation(layer):
    layer.eval()
    original(layer).data.mul_(torch.rand(6, 1, 1, 1) + 2)
    before = original(layer).detach().clone()
    layer(torch.randn(2, 8, 4, 4))
    assert torch.equal(original(layer), before)
    layer.train()
    first = layer(torch.randn(2, 8, 4, 4))
    forced = original(layer).detach().clone()
    torch.testing.assert_close(forced.flatten(1).norm(dim=1), torch.full((6,), math.sqrt(4 * 9)))
    torch.testing.assert_close(F.normalize(forced.flatten(1)), F.normalize(before.flatten(1)))
    second = layer(torch.randn(2, 8, 4, 4))  # before the first's backward pass, as a discriminator is used
    (first.sum() + second.sum()).backward()
    assert torch.equal(original(layer), forced)
    again = copy.deepcopy(layer)  # as an average of weights, or a resumed run: not a bit may move
    again(torch.randn(2, 8, 4, 4))
    assert torch.equal(original(again), forced)
    # no gradient along the weights
    along = (original(layer).grad * forced).flatten(1).sum(1)
    assert float(along.abs().max()) < 1e-4 * float(original(layer).grad.norm() * forced.norm())


def test_what_a_fused_optimizer_writes_is_seen(layer):
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.5, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, 8, 4, 4)).square().sum().backward()
        optimizer.step()
    layer(torch.randn(2, 8, 4, 4))
    torch.testing.assert_close(original(layer).detach().flatten(1).norm(dim=1), torch.full((6,), 6.0))


def test_gradients_agree_with_finite_differences():
    torch.manual_seed(0)
    layer = magnitude_preserving(nn.Linear(3, 2, bias=False, dtype=torch.float64), 0.7, learned=True).eval()
    gain = layer.parametrizations.weight[0].gain
    x, weight = torch.randn(4, 3, dtype=torch.float64), original(layer)

    def function(weight, gain):
        values = {"parametrizations.weight.original": weight, "parametrizations.weight.0.gain": gain}
        return torch.func.functional_call(layer, values, (x,))

    assert torch.autograd.gradcheck(function, (weight, gain.detach().double().requires_grad_()))
    assert isinstance(gain, nn.Parameter)


def test_magnitudes_pass_activations_sums_and_whole_networks():
    torch.manual_seed(0)
    x = torch.randn(4000, 64)
    for slope in (0.0, 0.2):
        activated = F.leaky_relu(x, slope)
        assert float(activated.square().mean().sqrt()) * activation_gain(slope) == pytest.approx(1, rel=0.01)
    for share in (0.0, 0.3, 0.5, 1.0):
        total = magnitude_preserving_sum(x, torch.randn_like(x), share)
        assert float(total.std()) == pytest.approx(1, rel=0.01)
    assert torch.equal(magnitude_preserving_sum(x, x + 1, 0.0), x)
    for model, shape in (
        ("mlp-deep", (2,)),
        ("residual-mlp", (2,)),
        ("resnet-tiny", (3, 8, 8)),
        ("r3gan-tiny", (3, 8, 8)),
    ):
        options = {"normalization": "magnitude_preserving", "discriminator_normalization": "magnitude_preserving"}
        generator, discriminator = build_players(model, shape, **options)
        assert not [name for name, _ in discriminator.named_parameters() if name.endswith("bias")]
        features = discriminator.body(discriminator.stem(torch.randn(64, *shape)))
        assert 0.3 < float(features.detach().square().mean().sqrt()) < 3
        features = generator.stem(torch.randn(64, generator.latent_dim))
        for stage in generator.stages:
            features = stage(features)
        assert 0.3 < float(features.detach().square().mean().sqrt()) < 3


def test_a_one_stands_in_for_biases():
    x = torch.randn(2, 3, 4, 5)
    for each in (x, x[:, :, 0, 0]):
        appended = AppendOne()(each)
        assert torch.equal(appended[:, :3], each)
        assert torch.equal(appended[:, 3:], torch.ones_like(each[:, :1]))


def test_what_cannot_preserve_magnitudes_is_refused():
    with pytest.raises(TypeError, match="ConvTranspose2d"):
        magnitude_preserving(nn.ConvTranspose2d(3, 4, 2, bias=False))
    with pytest.raises(ValueError, match="has a bias"):
        magnitude_preserving(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="gain must be"):
        magnitude_preserving(nn.Linear(3, 4, bias=False), -1.0)


def test_a_residual_block_takes_three_tenths_of_its_branch():
    block = Residual(nn.Sequential(nn.Tanh()), Parts("magnitude_preserving"))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(block(x), (0.7 * x + 0.3 * x.tanh()) / math.hypot(0.7, 0.3))
