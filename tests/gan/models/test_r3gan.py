"""R3GAN's block against its equations."""

import math

import pytest
import torch
import torch.nn.functional as F

from lsdr.gan.models.build import build_players
from lsdr.gan.models.parts import Parts
from lsdr.gan.models.r3gan import r3gan_block
from lsdr.gan.models.residual import Residual, initialise_residual


def test_the_block_is_its_equation():
    torch.manual_seed(0)
    block = r3gan_block(16, Parts("none"))
    first, second, third = (layer for layer in block.branch if hasattr(layer, "weight"))
    assert [tuple(layer.weight.shape) for layer in (first, second, third)] == [
        (32, 16, 1, 1),
        (32, 16, 3, 3),  # two groups of 16
        (16, 32, 1, 1),
    ]
    assert third.bias is None
    x = torch.randn(2, 16, 5, 5)
    inner = F.leaky_relu(F.conv2d(x, first.weight, first.bias), 0.2)
    inner = F.leaky_relu(F.conv2d(inner, second.weight, second.bias, padding=1, groups=2), 0.2)
    torch.testing.assert_close(block(x), x + F.conv2d(inner, third.weight))
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        r3gan_block(12, Parts("none"))


def test_fixup_starts_every_block_as_the_identity_with_small_layers_before_its_zeros():
    torch.manual_seed(0)
    generator, discriminator = build_players("r3gan-small", (3, 16, 16))
    for network in (generator, discriminator):
        blocks = [each for each in network.modules() if isinstance(each, Residual)]
        assert len(blocks) == 6  # two at each of three sizes
        for block in blocks:
            first, second, _ = (layer for layer in block.branch if hasattr(layer, "weight"))
            x = torch.randn(1, first.in_channels, 4, 4)
            assert torch.equal(block(x), x)
            for layer in (first, second):
                fan_in = layer.weight[0].numel()
                expected = math.sqrt(2 / (1 + 0.2**2) / fan_in) * 6 ** (-1 / 4)
                assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)


def test_without_fixup_branches_double_the_variance():
    torch.manual_seed(0)
    block = r3gan_block(64, Parts("none"))
    initialise_residual(torch.nn.ModuleDict({"block": block}), Parts("none"))
    x = torch.randn(64, 64, 8, 8)
    assert float(block(x).detach().var()) > 1.5
