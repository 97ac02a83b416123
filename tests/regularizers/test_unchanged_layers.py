"""Projecting again what has not changed since."""

import pytest
import torch
from torch import nn

import lsdr.regularizers._normalization_term as term_module
from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization


@pytest.fixture
def measured(monkeypatch):
    """Shapes of the matrices, and names of the operators, that were measured."""
    seen = []
    blocks, operator = term_module.largest_of_blocks, term_module.largest_of_operator
    monkeypatch.setattr(
        term_module, "largest_of_blocks", lambda b, tolerance: seen.append(tuple(b.shape)) or blocks(b, tolerance)
    )
    monkeypatch.setattr(
        term_module, "largest_of_operator", lambda *a, **k: seen.append("operator") or operator(*a, **k)
    )
    return seen


def game():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    return nn.ModuleDict({"generator": generator, "discriminator": nn.Linear(3, 5)})


@pytest.mark.parametrize("soft", [True, False])
def test_each_player_of_a_game_pays_for_itself(measured, soft):
    model = game()
    with attach(model, SpectralNormalization(bound=0.5, soft=soft)) as penalty:
        for player, shapes in (("generator", [(1, 8, 2), (1, 3, 8)]), ("discriminator", [(1, 5, 3)])):
            optimizer = torch.optim.Adam(model[player].parameters(), lr=0.1, fused=True)
            for parameter in model[player].parameters():
                parameter.grad = torch.randn_like(parameter)
            measured.clear()
            optimizer.step()
            penalty.project_()
            assert measured == shapes
            before = {name: each.clone() for name, each in model.state_dict().items()}
            measured.clear()
            penalty.project_()
            assert measured == []
            assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) <= 0.5005


WRITES = {
    "data": lambda weight: weight.data.mul_(3),
    "data of the same size": lambda weight: weight.data.copy_(weight.data * torch.rand_like(weight) * 9),
    "one entry": lambda weight: weight.data[0, 0].fill_(5),
    "replaced": lambda weight: setattr(weight, "data", weight.data * 3),
    "numpy": lambda weight: weight.detach().numpy().__imul__(3),
    "loaded": lambda weight: weight.detach().copy_(torch.full_like(weight, 0.6)),
}


@pytest.mark.parametrize("write", WRITES)
def test_whoever_writes_to_a_weight_it_is_seen(write):
    model = game()
    with attach(model, SpectralNormalization(bound=0.5)) as penalty:
        penalty.project_()
        version = model["discriminator"].weight._version
        WRITES[write](model["discriminator"].weight)
        assert float(torch.linalg.matrix_norm(model["discriminator"].weight.detach(), 2)) > 0.6
        assert write == "loaded" or model["discriminator"].weight._version == version  # which would not have told
        penalty.project_()
        assert float(torch.linalg.matrix_norm(model["discriminator"].weight.detach(), 2)) <= 0.5005


def test_changes_too_small_to_be_seen_add_up():
    model = game()
    layer = model["discriminator"]
    with attach(model, SpectralNormalization(bound=0.5, tolerance=1e-5)) as penalty:
        with torch.no_grad():
            for _ in range(200):
                layer.weight.mul_(1 + 2e-7)
                penalty.project_()
        assert float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) <= 0.5 * (1 + 2e-5)


def test_tied_weights_and_learned_gains():
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with attach(tied, SpectralNormalization(bound=0.5, soft=False)) as penalty:
        for _ in range(3):
            with torch.no_grad():
                tied[0].weight.mul_(2)
            penalty.project_()
            assert float(torch.linalg.matrix_norm(tied[0].weight.detach(), 2)) == pytest.approx(0.5, rel=1e-3)
    model = nn.Sequential(nn.Linear(4, 4))
    regularizer = SpectralNormalization(bound=2.0, soft=False, gain="learnable")
    with regularizer.attach(model) as term:
        (gain,) = term.parameters()
        optimizer = torch.optim.SGD([*model.parameters(), gain], lr=0.0)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for value in (0.3, 1.7):  # the gain alone has changed
            with torch.no_grad():
                gain.fill_(value)
            term.project_()
            assert float(torch.linalg.matrix_norm(model[0].weight.detach(), 2)) == pytest.approx(value, rel=1e-3)


def test_a_resumed_run_measures_what_the_other_would_have_measured(measured):
    """Bitwise: a measurement by Krylov spaces leaves other vectors behind than none."""

    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1))

    def step(model, layer, penalty):
        with torch.no_grad():
            model[layer].weight.add_(torch.randn(model[layer].weight.shape, generator=drawn) * 0.05)
        penalty.project_()

    control = SpectralNormalization(bound=1.0, operator="zero_padded", size=8)
    model, drawn = build(), torch.Generator().manual_seed(1)
    with attach(model, control) as penalty:
        step(model, 1, penalty)
        step(model, 0, penalty)
        weights = {name: each.clone() for name, each in model.state_dict().items()}
        state, seed = {name: each.clone() for name, each in penalty.state_dict().items()}, drawn.get_state()
        measured.clear()
        step(model, 0, penalty)  # the second layer is not measured
        assert len([each for each in measured if each == "operator"]) == 1
        step(model, 1, penalty)
        expected = {**model.state_dict(), **penalty.state_dict()}
        expected = {name: each.clone() for name, each in expected.items()}
    other = build()
    with attach(other, control) as penalty:
        other.load_state_dict(weights)
        penalty.load_state_dict(state)
        drawn.set_state(seed)
        step(other, 0, penalty)
        step(other, 1, penalty)
        found = {**other.state_dict(), **penalty.state_dict()}
    assert found.keys() == expected.keys()
    assert any(name.endswith("vectors/1") for name in found)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
