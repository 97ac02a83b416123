"""`SpectralNormalization(gain="learnable")`."""

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization

TOLERANCE = 1e-3


def norm(module):
    return float(torch.linalg.matrix_norm(module.weight.detach().double(), 2))


def test_learned_gains_follow_the_gradient_of_the_parametrization():
    """One step of SGD on (V, g) with W = g V / sigma(V), against a step by hand in float64."""
    torch.manual_seed(0)
    model, x = nn.Linear(6, 5, bias=False).double(), torch.randn(9, 6, dtype=torch.float64)
    with SpectralNormalization(bound=10.0, soft=False, gain="learnable", tolerance=1e-6).attach(model) as term:
        (gain,) = term.parameters()
        direction = (model.weight.detach() / norm(model)).requires_grad_()
        by_hand = gain.detach().double().requires_grad_()
        (x @ (by_hand * direction / torch.linalg.matrix_norm(direction, 2)).mT).sin().sum().backward()
        assert by_hand.grad.abs() > 1e-2
        optimizer = torch.optim.SGD([*model.parameters(), gain], lr=1e-3)
        model(x).sin().sum().backward()
        optimizer.step()
        torch.testing.assert_close(gain.grad.double(), by_hand.grad, rtol=1e-5, atol=0)
        term.project_()
        expected = by_hand.detach() - 1e-3 * by_hand.grad
        torch.testing.assert_close(torch.tensor(norm(model)), expected.float(), rtol=1e-5, atol=0)


def test_learned_gains_stay_between_zero_and_the_bound_and_zeros_can_grow():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 1))
    with torch.no_grad():
        model[2].weight.zero_()
        model[0].weight.mul_(9)
    with SpectralNormalization(bound=1.5, soft=False, gain="learnable").attach(model) as term:
        first, second, last = term.parameters()
        assert last == 0
        assert abs(first.item() - 1.5) < 1e-6
        assert abs(second.item() - norm(model[1])) < 1e-6
        optimizer = torch.optim.Adam([*model.parameters(), *term.parameters()], lr=0.3)
        for number, sign in enumerate([1] * 6 + [-1] * 20):
            optimizer.zero_grad()
            (sign * model(torch.randn(16, 6)).square().sum() - model(torch.ones(1, 6)).sum()).backward()
            optimizer.step()
            grown = min(norm(model[2]), 1.5)
            term.project_()
            if number == 0:
                assert abs(last.item() - grown) < 1e-5
                assert grown > 0.1
            for layer, gain in zip(model, term.parameters(), strict=True):
                assert 0 < gain <= 1.5 * (1 + 1e-6)
                assert abs(norm(layer) / gain.item() - 1) <= TOLERANCE
        assert max(term.parameters()) == 1.5


def test_gains_that_no_optimiser_holds_are_an_error():
    model = nn.Linear(3, 3)
    with attach(model, SpectralNormalization(soft=False, gain="learnable")) as penalty:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.ones(1, 3)).sum().backward()
        penalty.project_()  # no step was taken, as when a gradient overflowed
        optimizer.step()
        with pytest.raises(RuntimeError, match="add_param_group"):
            penalty.project_()
    assert not _global_optimizer_pre_hooks
