"""Distances of amplitude and phase: the squared error when weighted alike, and nothing that jumps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.fourier.amplitude_phase import amplitude_phase_distance, coefficients

SIZES = [(8,), (7,), (1,), (6, 6), (5, 7), (4, 9), (1, 8), (3, 4, 5), (4, 4, 4), (5, 3, 7)]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_equal_weights_are_the_mean_squared_error(size):
    one, other = draw(2, 3, *size), draw(2, 3, *size, seed=1)
    (a, often), (b, _) = coefficients(one), coefficients(other)
    distance = (amplitude_phase_distance(a, b) * often).sum(1) / often.sum()
    torch.testing.assert_close(distance, (one - other).square().flatten(1).mean(1), rtol=1e-12, atol=0)
    assert often.sum() == 3 * math.prod(size)


@pytest.mark.parametrize("size", [(8,), (5, 6), (3, 4, 5)])
def test_coefficients_are_one_channel_after_the_other(size):
    images = draw(2, 3, *size)
    values, often = coefficients(images)
    alone, once = coefficients(images[1:, 2:])
    m = len(once)
    assert torch.equal(values[1:, 2 * m :], alone)
    assert torch.equal(often, once.repeat(3))


@given(
    amplitude=st.floats(0, 5),
    phase=st.floats(0, 5),
    real=st.lists(st.floats(-10, 10), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_the_identity_of_amplitude_and_phase(amplitude, phase, real):
    a = torch.complex(*torch.tensor(real[:2], dtype=torch.float64)).reshape(1, 1)
    b = torch.complex(*torch.tensor(real[2:], dtype=torch.float64)).reshape(1, 1)
    A, B = a.abs(), b.abs()
    expected = amplitude * (A - B) ** 2 + phase * 2 * A * B * (1 - torch.cos(a.angle() - b.angle()))
    found = amplitude_phase_distance(a, b, amplitude=amplitude, phase=phase)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert found.item() >= 0


def test_amplitude_alone_is_blind_to_shifts_and_phase_alone_to_scale():
    image = draw(1, 2, 6, 7)
    shifted = image.roll((2, 3), (2, 3))
    a, b = coefficients(image).values, coefficients(shifted).values
    assert amplitude_phase_distance(a, b, amplitude=1.0, phase=0.0).max() < 1e-25
    assert amplitude_phase_distance(a, b, amplitude=0.0, phase=1.0).mean() > 0.1
    assert amplitude_phase_distance(a, 3 * a, amplitude=0.0, phase=1.0).max() < 1e-13
    assert amplitude_phase_distance(a, 3 * a, amplitude=1.0, phase=0.0).mean() > 0.1


def test_nothing_jumps_at_the_branch_cut():
    """Two coefficients on either side of the negative axis are near each other."""
    near = [torch.polar(torch.ones(1, 1), torch.full((1, 1), angle)) for angle in (math.pi - 1e-3, 1e-3 - math.pi)]
    assert amplitude_phase_distance(*near, amplitude=1.0, phase=2.0).item() == pytest.approx(2 * 4e-6, rel=1e-2)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_gradients_match_finite_differences(weights):
    images, other = draw(2, 2, 4, 3).requires_grad_(), coefficients(draw(2, 2, 4, 3, seed=1)).values

    def loss(x):
        return amplitude_phase_distance(coefficients(x).values, other, amplitude=weights[0], phase=weights[1])

    assert torch.autograd.gradcheck(loss, (images,))
    assert torch.autograd.grad(loss(images).sum(), images)[0].abs().min() > 0


@pytest.mark.parametrize("scale", [0.0, 1e-30])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_the_gradient_is_finite_where_a_coefficient_is_zero(scale, weights):
    for first, second in ((scale, 1.0), (1.0, scale), (scale, scale)):
        one = (first * torch.ones(1, 1, 4, 4)).requires_grad_()  # all coefficients but the mean are zero
        other = (second * draw(1, 1, 4, 4, dtype=torch.float32)).requires_grad_()
        distance = amplitude_phase_distance(
            coefficients(one).values, coefficients(other).values, amplitude=weights[0], phase=weights[1]
        )
        for gradient in torch.autograd.grad(distance.sum(), (one, other)):
            assert gradient.isfinite().all()


def test_parallel_coefficients_in_float32_are_never_below_zero():
    a = torch.complex(draw(1, 1000, dtype=torch.float32), draw(1, 1000, seed=1, dtype=torch.float32))
    assert amplitude_phase_distance(a, 7 * a, amplitude=0.0, phase=1.0).min() >= 0


def test_half_precision_is_computed_in_float32_also_under_autocast():
    images = draw(1, 1, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, often = coefficients(images)
    assert found.dtype == torch.complex64
    assert often.dtype == torch.float32
    assert torch.equal(found, coefficients(images.float()).values)


@pytest.mark.parametrize("name", ["amplitude", "phase"])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none(name, weight):
    a = torch.ones(1, 1, dtype=torch.complex64)
    with pytest.raises(ValueError, match=f"{name} .* finite number >= 0, got {weight}"):
        amplitude_phase_distance(a, a, **{name: weight})


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2, 2, 2, 2)])
def test_shapes_that_are_no_images(shape):
    with pytest.raises(ValueError, match=r"1 to 3 further axes .*got the shape"):
        coefficients(torch.ones(shape))
