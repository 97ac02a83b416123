import copy

import pytest
import torch
from torch import nn

from lsdr.probes.tracked import TrackedWeightProbe


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, groups=2), nn.ConvTranspose2d(8, 4, 2),
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6)), nn.Embedding(10, 6),
    )  # fmt: skip


def truth(module):
    """The weight as a matrix, by hand."""
    groups = getattr(module, "groups", 1)
    with torch.no_grad():
        weight = copy.deepcopy(module).eval().weight.double()
    if groups > 1:
        return torch.block_diag(*weight.flatten(1).chunk(groups))
    return weight.transpose(0, 1).flatten(1).T if isinstance(module, nn.ConvTranspose2d) else weight.flatten(1)


def check(values, model):
    for name, found in values.items():
        matrix = truth(model.get_submodule(name))
        if isinstance(model.get_submodule(name), nn.ConvTranspose2d):
            matrix = model.get_submodule(name).weight.detach().double().flatten(1)
        sigma = torch.linalg.svdvals(matrix)
        assert found["sigma_max"] == pytest.approx(sigma[0].item(), rel=1e-2), name
        assert found["sigma_2"] == pytest.approx(sigma[1].item(), rel=5e-2), name
        assert found["stable_rank"] == pytest.approx((sigma.square().sum() / sigma[0] ** 2).item(), rel=2e-2), name


def test_every_kind_of_layer_is_followed_while_it_changes():
    model = build()
    probe = TrackedWeightProbe(count=2)
    assert list(probe.select(model)) == ["0", "2", "3", "4", "5"]
    check(probe(model), model)
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        values = probe(model)
    check(values, model)
    only = probe.narrow(["3"])(model)
    assert list(only) == ["3"]
    assert only["3"]["sigma_max"] == pytest.approx(values["3"]["sigma_max"], rel=1e-3)


def test_weights_that_are_replaced_are_noticed():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    probe = TrackedWeightProbe()
    probe(model)
    model[0].weight = nn.Parameter(torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0])))
    assert probe(model)["0"]["sigma_max"] == pytest.approx(5.0, rel=1e-3)
    model[1].weight.data = torch.diag(torch.tensor([7.0, 1.0, 1.0, 1.0]))
    assert probe(model)["1"]["sigma_max"] == pytest.approx(7.0, rel=1e-2)
    model[0].weight = nn.Parameter(torch.diag(torch.tensor([9.0, 1.0])))
    assert probe(model)["0"]["sigma_max"] == pytest.approx(9.0, rel=1e-2)


def test_zeros_and_what_is_not_finite():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight.data.zero_()
    model[1].weight.data[1, :2] = float("nan")
    values = TrackedWeightProbe()(model)
    assert values["0"] == {"sigma_max": 0.0, "stable_rank": 0.0}
    assert values["1"] == {"nonfinite": 2.0}
    assert values["2"]["sigma_max"] > 0


def test_the_state_goes_on_where_it_was():
    model = build()
    probe = TrackedWeightProbe(count=2)
    probe(model)
    state = {name: tensor.clone() for name, tensor in probe.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    expected = probe(model)
    other = TrackedWeightProbe(count=2)
    other.load_state_dict(state)
    assert other.state_dict().keys() == state.keys()
    assert other(model) == expected
    assert TrackedWeightProbe(count=2)(model) != expected


def test_adapted_layers_are_measured_with_their_adapters():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    probe = TrackedWeightProbe()
    names = list(probe.select(adapted))
    assert names == ["base_model.model.0", "base_model.model.1"]
    layer = adapted.base_model.model[0]
    for _ in range(2):
        whole = layer.base_layer.weight + layer.get_delta_weight("default")
        sigma = torch.linalg.svdvals(whole.detach())
        found = probe(adapted)[names[0]]
        assert found["sigma_max"] == pytest.approx(sigma[0].item(), rel=1e-2)
        assert found["stable_rank"] == pytest.approx((sigma.square().sum() / sigma[0] ** 2).item(), rel=2e-2)
        layer.lora_B["default"].weight.data *= 3


def test_a_model_without_matrices_is_refused():
    with pytest.raises(ValueError, match="has a weight of two dimensions or more"):
        TrackedWeightProbe().select(nn.Sequential(nn.LayerNorm(3)))
