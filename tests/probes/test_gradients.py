import math

import pytest
import torch
from torch import nn

from lsdr.probes.gradients import GradientProbe


def test_norms_are_those_of_a_layers_own_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)))
    for _ in range(2):  # two chunks: gradients add up
        model(torch.randn(5, 3)).square().sum().backward()
    values = GradientProbe()(model)
    assert list(values) == ["0", "2.0", "2.1"]
    for name in values:
        own = list(model.get_submodule(name).parameters())
        norm = torch.cat([parameter.grad.flatten() for parameter in own]).norm().item()
        weight = torch.cat([parameter.flatten() for parameter in own]).norm().item()
        assert values[name] == pytest.approx({"norm": norm, "relative": norm / weight}, rel=1e-6)


def test_frozen_layers_are_left_out_and_those_without_a_gradient():
    model = nn.ModuleDict(
        {"frozen": nn.Linear(2, 2).requires_grad_(False), "idle": nn.Linear(2, 2), "a": nn.Linear(2, 2)}
    )
    assert list(GradientProbe().select(model)) == ["idle", "a"]
    model["a"](torch.ones(1, 2)).sum().backward()
    assert list(GradientProbe()(model)) == ["a"]
    with pytest.raises(ValueError, match="holds trained parameters"):
        GradientProbe("frozen").select(model)
    with pytest.raises(RuntimeError, match=r"after backward\(\) and before zero_grad\(\)"):
        GradientProbe("idle")(model)


def test_what_is_not_finite_is_counted_and_what_is_zero_has_no_relative_norm():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    model[1].weight.data.zero_()
    model[0].weight.grad, model[0].bias.grad = torch.ones(3, 2), torch.tensor([1.0, math.nan, math.inf])
    model[1].weight.grad = torch.full((1, 3), 2.0)
    assert GradientProbe()(model) == {"0": {"nonfinite": 2.0}, "1": {"norm": pytest.approx(math.sqrt(12))}}


def test_half_precision_does_not_overflow():
    model = nn.Linear(100, 100, bias=False).half()
    model.weight.grad = torch.full((100, 100), 6e4, dtype=torch.float16)
    assert GradientProbe()(model)[""]["norm"] == pytest.approx(6e6, rel=1e-3)


def test_sparse_gradients():
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1, 1, 3])).sum().backward()
    assert GradientProbe()(model)[""]["norm"] == pytest.approx(math.sqrt(2 * 2**2 + 2))


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e-17, 1.0, 1e20, 1e38])
def test_gradients_that_vanish_or_explode_have_the_norm_that_they_have(size):
    """Their squares are no float32 numbers, and vanishing is what one looks for."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, size)
    values = GradientProbe()(model)
    assert values["0"]["norm"] == pytest.approx(3 * size, rel=1e-6)
    assert values["1"]["norm"] == pytest.approx(math.sqrt(12) * size, rel=1e-6)


def test_large_layers_are_widened_in_parts(monkeypatch):
    monkeypatch.setattr("lsdr.probes.gradients._PART", 5)
    layer = nn.Linear(4, 3)
    layer.weight.grad, layer.bias.grad = 1e-25 * torch.arange(12.0).view(3, 4), torch.zeros(3)
    assert GradientProbe()(layer)[""]["norm"] == pytest.approx(1e-25 * math.sqrt(506), rel=1e-6)
