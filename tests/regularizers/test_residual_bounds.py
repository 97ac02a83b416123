"""`SpectralNormalization.residual`."""

import math

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.lipschitz_bound import lipschitz_bound
from lsdr.regularizers.spectral_normalization import SpectralNormalization


def test_residual_blocks_are_bounded_as_promised():
    class Block(nn.Module):
        def __init__(self, branch, mix=None):
            super().__init__()
            self.branch, self.mix = branch, mix

        def forward(self, x):
            return x + self.branch(x) if self.mix is None else (1 - self.mix) * x + self.mix * self.branch(x)

    def branch():
        return nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 4, 3, padding=1))

    torch.manual_seed(0)
    for form, mix, bound in (("sum", None, 1.5), ("convex", 0.3, 1.0), ("convex", 0.9, 1.2)):
        for size in (6, None):
            model = nn.Sequential(Block(branch(), mix), Block(branch(), mix)).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(10)
            regularizer = SpectralNormalization.residual(model, "*.branch", bound, form, size=size)
            assert regularizer.layers == ("0.branch.0", "0.branch.2", "1.branch.0", "1.branch.2")
            with attach(model, regularizer):
                for block in model:
                    certified = lipschitz_bound(block, (4, 6, 6)).bound
                    assert certified <= bound * 1.001
                    if size is not None and mix is None:
                        assert certified >= bound * 0.98
    for form, bound in (("sum", 1.0), ("convex", 0.9), ("lipschitz", 0.0), ("sum", math.inf)):
        with pytest.raises(ValueError, match="bound must be"):
            SpectralNormalization.residual(model, "*.branch", bound, form)
    with pytest.raises(ValueError, match="no layer with a weight"):
        SpectralNormalization.residual(nn.Sequential(nn.ReLU()), "0", 2.0)


class Repeating(nn.Module):
    """One layer used twice, or beside a skip connection that is inside the branch."""

    def __init__(self, skip):
        super().__init__()
        self.layer, self.skip = nn.Linear(4, 4), skip

    def forward(self, x):
        return torch.cat([x, self.layer(x)], 1) if self.skip else self.layer(torch.relu(self.layer(x)))


@pytest.mark.parametrize(("skip", "bound"), [(True, 0.7), (False, 4.0)])
def test_branches_that_are_no_chains_are_refused(skip, bound):
    with pytest.raises(ValueError, match="no chain"):
        SpectralNormalization.residual(nn.Sequential(Repeating(skip)), "0", bound=bound, form="lipschitz")


def test_branches_within_branches_keep_all_bounds():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
    with attach(model, SpectralNormalization.residual(model, ["0", "0.1"], bound=4.0, form="lipschitz")):
        pass
    assert lipschitz_bound(model[0]).bound <= 4.0
    assert lipschitz_bound(model[0][1]).bound <= 4.0
