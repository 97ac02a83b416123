"""Fixup's initialisation."""

import pytest
import torch
from torch import nn

from lsdr.gan.fixup import fixup_


class Block(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        parts = [part for _ in range(layers - 1) for part in (nn.ReLU(), nn.Linear(width, width))]
        self.branch = nn.Sequential(*parts, nn.ReLU(), nn.Linear(width, width, bias=False))

    def forward(self, x):
        return x + self.branch(x)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("blocks", [1, 16])
def test_scales_of_the_paper(layers, blocks):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(64, layers) for _ in range(blocks)), nn.Linear(64, 3))
    head = model[-1].weight.clone()
    for parameter in model[:-1].parameters():
        nn.init.constant_(parameter, 7.0)
    assert fixup_(model) == blocks
    assert torch.equal(model[-1].weight, head)
    for block in model[:-1]:
        *inner, last = (each for each in block.branch if isinstance(each, nn.Linear))
        assert not last.weight.any()
        for layer in inner:
            expected = (2 / 64) ** 0.5 * blocks ** (-1 / (2 * layers - 2))
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)
        assert not any(layer.bias.any() for layer in inner)


def test_a_step_changes_the_output_by_as_much_whatever_the_depth():
    def moved(blocks, fixup):
        torch.manual_seed(0)
        x, head = torch.randn(64, 32), nn.Linear(32, 1)
        model = nn.Sequential(*(Block(32, 2) for _ in range(blocks)), head)
        if fixup:
            fixup_(model)
        before = model(x)
        before.mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-3 * parameter.grad
            return float((model(x) - before).abs().mean())

    with_fixup = moved(64, True) / moved(2, True)
    assert 0.3 < with_fixup < 3
    assert moved(64, False) / moved(2, False) > 10 * with_fixup


def test_what_is_no_branch_is_refused():
    with pytest.raises(ValueError, match=r"branch '0\.branch' has 1 layers"):
        fixup_(nn.Sequential(Block(4, 1)))
    with pytest.raises(ValueError, match="matches"):
        fixup_(nn.Sequential(nn.Linear(2, 2)))
