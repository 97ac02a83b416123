"""Weights that `SpectralNormalization` meets in real models: shared, replaced, next to nothing."""

import pytest
import torch
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.spectral_normalization import SpectralNormalization

TOLERANCE = 1e-3


def norm(module):
    return float(torch.linalg.matrix_norm(module.weight.detach().double(), 2))


def tied():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.mul_(9)
    return model


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_that_two_layers_share_is_scaled_once(soft, dtype):
    model = tied().to(dtype)
    with attach(model, SpectralNormalization(soft=soft)):
        pass
    assert norm(model[0]) == pytest.approx(1, abs=TOLERANCE if dtype == torch.float32 else 1e-2)


def test_a_weight_that_two_layers_share_has_no_two_gains():
    with (
        pytest.raises(ValueError, match="'0' and '1' share a weight"),
        attach(tied(), SpectralNormalization(soft=False, gain="learnable")),
    ):
        pass


@pytest.mark.parametrize("gain", ["fixed", "learnable"])
def test_a_weight_that_another_took_the_place_of_is_held(gain):
    model = nn.Linear(6, 6)
    with attach(model, SpectralNormalization(soft=False, gain=gain)) as penalty:
        loaded = {name: 20 * value for name, value in model.state_dict().items()}
        model.load_state_dict(loaded, assign=True)
        penalty.project_()
    assert norm(model) <= 1 + TOLERANCE


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e38])
@pytest.mark.parametrize("soft", [True, False])
def test_weights_next_to_nothing_and_next_to_infinity(scale, soft):
    torch.manual_seed(0)
    model = nn.Linear(6, 6)
    model.weight.data = torch.rand(6, 6) * scale
    with attach(model, SpectralNormalization(soft=soft)):
        pass
    assert (norm(model) < 1e-36) if soft and scale < 1 else norm(model) == pytest.approx(1, rel=TOLERANCE)
