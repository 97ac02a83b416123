"""Weights by the error: Focal Frequency Loss' formula, an example at a time, and no gradient."""

import pytest
import torch

from lsdr.fourier.focal_weight import focal_weight


@pytest.fixture
def pair():
    source = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 4, 5, dtype=torch.complex128, generator=source) for _ in range(2)]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_published_formula_of_each_channel(pair, alpha):
    one, other = pair
    # |F - F'|^alpha over its largest value in the channel
    expected = torch.sqrt((one.real - other.real) ** 2 + (one.imag - other.imag) ** 2) ** alpha
    expected = expected / expected.amax((2, 3), keepdim=True)
    distance = (one - other).abs().square()
    found = focal_weight(distance.reshape(6, 20), alpha)
    torch.testing.assert_close(found, expected.reshape(6, 20))


def test_examples_are_on_their_own_and_channels_are_not(pair):
    distance = (pair[0] - pair[1]).abs().square().flatten(1)
    weight = focal_weight(distance)
    assert (weight.amax(1) == 1).all()
    assert (weight >= 0).all()
    assert torch.equal(weight[1:2], focal_weight(distance[1:2]))
    torch.testing.assert_close(focal_weight(9 * distance), weight)


def test_weights_carry_no_gradient():
    distance = torch.ones(1, 3, requires_grad=True)
    assert not focal_weight(distance).requires_grad


def test_no_error_has_no_weight_and_alpha_zero_weights_alike():
    distance = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [1e30, 1e30]])
    assert focal_weight(distance).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert focal_weight(distance, 0.0).tolist() == [[0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_powers_that_are_none(alpha):
    with pytest.raises(ValueError, match=f"alpha .*got {alpha}"):
        focal_weight(torch.ones(1, 1), alpha)
