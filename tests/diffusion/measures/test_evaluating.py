"""Measuring leaves flags as they were."""

import pytest
import torch
from torch import nn

from lsdr.diffusion.measures.evaluating import evaluating


def test_flags_come_back_one_by_one_also_after_an_error(tiny):
    tiny.model.train()
    tiny.model.norm.eval()
    before = [module.training for module in tiny.model.modules()]
    with evaluating(tiny):
        assert not any(module.training for module in tiny.model.modules())
    assert [module.training for module in tiny.model.modules()] == before
    with pytest.raises(ValueError, match="labels"), evaluating(tiny):
        tiny(torch.ones(1, 1, 4, 4), torch.tensor(1.0), torch.zeros(3, dtype=torch.long))
    assert [module.training for module in tiny.model.modules()] == before


def test_autocast_is_off_inside():
    net = nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), evaluating(net):
        assert net(torch.ones(1, 2)).dtype == torch.float32


def test_a_plain_function_will_do():
    with evaluating(lambda x: x):
        pass
