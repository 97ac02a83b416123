"""Measuring leaves flags as they were."""

import pytest
import torch
from torch import nn

from lsdr.probes.evaluating import evaluating


class Wrapper:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())

    def __call__(self, x):
        return self.model(x)


def test_flags_come_back_one_by_one_also_after_an_error():
    denoiser = Wrapper()
    denoiser.model.train()
    denoiser.model[1].eval()
    before = [module.training for module in denoiser.model.modules()]
    with evaluating(denoiser):
        assert not any(module.training for module in denoiser.model.modules())
    assert [module.training for module in denoiser.model.modules()] == before
    with pytest.raises(RuntimeError, match="shapes"), evaluating(denoiser):
        denoiser(torch.ones(1, 3))
    assert [module.training for module in denoiser.model.modules()] == before


def test_autocast_is_off_inside():
    net = nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), evaluating(net):
        assert net(torch.ones(1, 2)).dtype == torch.float32


def test_a_plain_function_will_do():
    with evaluating(lambda x: x):
        pass
