import pytest
import torch
from torch import nn
from torch.linalg import matrix_norm

from lsdr.regularizers.attach import attach
from lsdr.regularizers.lipschitz_bound import lipschitz_bound
from lsdr.regularizers.residual_normalization import ResidualNormalization
from lsdr.regularizers.spectral_normalization import SpectralNormalization


class Block(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.branch = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(width, 8), nn.LeakyReLU(0.2), nn.Linear(8, width))

    def forward(self, x):
        return x + self.branch(x)


def players():
    torch.manual_seed(0)
    model = nn.ModuleDict({"generator": nn.Sequential(Block(), Block()), "discriminator": Block()})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    return model


def gain(block):
    linear = [each for each in block.branch if isinstance(each, nn.Linear)]
    return float(torch.stack([matrix_norm(each.weight.detach(), 2) for each in linear]).prod())


def blocks(model):
    return [each for each in model.modules() if isinstance(each, Block)]


def test_every_block_of_both_players_is_held_when_attached_and_after_steps():
    model, normalization = players(), ResidualNormalization(bound=1.5)
    assert min(map(gain, blocks(model))) > 5
    with attach(model, normalization) as penalty:
        assert max(map(gain, blocks(model))) <= 0.5
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        assert max(map(gain, blocks(model))) > 2
        penalty.project_()
        assert 0.49 < min(map(gain, blocks(model))) <= max(map(gain, blocks(model))) <= 0.5
        assert lipschitz_bound(model["generator"], input_shape=(4,)).bound <= 1.5**2
    with torch.no_grad():
        model["discriminator"].branch[1].weight.mul_(3)
    assert max(map(gain, blocks(model))) > 1
    normalization.project_(model)  # not attached any more
    assert max(map(gain, blocks(model))) <= 0.5


def test_it_is_spectral_normalization_of_the_branches_for_any_model():
    ours, theirs = players(), players()
    with attach(ours, ResidualNormalization("generator.*.branch", 1.2, tolerance=1e-6)):
        pass
    with attach(theirs, SpectralNormalization.residual(theirs, "generator.*.branch", 1.2, tolerance=1e-6)):
        pass
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
    assert gain(ours["discriminator"]) > 5


def test_two_attached_to_one_model_keep_to_themselves():
    model = players()
    one, other = ResidualNormalization("generator.0.branch", 1.5), ResidualNormalization("generator.1.branch", 1.1)
    with attach(model, one) as first, attach(model, other):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        first.project_()
    held, free = (gain(block) for block in model["generator"])
    assert held <= 0.5
    assert free == pytest.approx(9 * 0.1, rel=0.01)


def test_a_model_without_branches_is_refused():
    normalization = ResidualNormalization()
    with pytest.raises(ValueError, match=r"no layer matches '\*branch'"), attach(nn.Linear(2, 2), normalization):
        pass
