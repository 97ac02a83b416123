"""What the ratios of a spectrum have in common, and their values where they are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.spectrum import Spectrum
from lsdr.statistics.condition_number import condition_number
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.participation_ratio import participation_ratio
from lsdr.statistics.power_law_exponent import power_law_exponent
from lsdr.statistics.spectral_entropy import spectral_entropy
from lsdr.statistics.stable_rank import stable_rank

RANKS = [effective_rank, stable_rank, participation_ratio]
ENTROPIC = [*RANKS, spectral_entropy]
ALL = [*ENTROPIC, condition_number]


def exponent(spectrum):
    return power_law_exponent(spectrum).exponent


def matrix(seed, rows=5, columns=8):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("statistic", RANKS)
@pytest.mark.parametrize("kind", ["singular_values", "eigenvalues"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_ranks_of_equal_values_and_of_one_value(statistic, kind, scale):
    equal = Spectrum.of(torch.full((4,), scale), kind)
    torch.testing.assert_close(statistic(equal), torch.tensor(4.0))
    torch.testing.assert_close(statistic(Spectrum.of([scale], kind)), torch.tensor(1.0))
    torch.testing.assert_close(statistic(Spectrum.of([0.0, scale, 0.0], kind)), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        # sigma = 3, 1, 0: p = 3/4, 1/4 of sigma; 9/10, 1/10 of its square
        (effective_rank, math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
        (spectral_entropy, -0.9 * math.log(0.9) - 0.1 * math.log(0.1)),
        (stable_rank, 10 / 9),
        (participation_ratio, 100 / 82),
        (condition_number, math.inf),
    ],
)
def test_values_by_hand_in_either_kind(statistic, expected):
    for spectrum in (Spectrum.of([0.0, 3.0, 1.0]), Spectrum.of([0.0, 9.0, 1.0], "eigenvalues")):
        torch.testing.assert_close(statistic(spectrum), torch.tensor(expected))


def test_condition_number_by_hand():
    for spectrum in (Spectrum.of([2.0, 8.0]), Spectrum.of([4.0, 64.0], "eigenvalues")):
        assert condition_number(spectrum) == 4
    assert condition_number(Spectrum.of([1e-30])) == 1


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("statistic", [*ALL, exponent])
def test_invariant_to_rotation_and_scale(statistic, seed):
    a = matrix(seed)
    left, _ = torch.linalg.qr(matrix(seed + 1, 5, 5))
    right, _ = torch.linalg.qr(matrix(seed + 2, 8, 8))
    expected = statistic(Spectrum.of(torch.linalg.svdvals(a)))
    turned = 1e3 * left @ a @ right
    torch.testing.assert_close(statistic(Spectrum.of(torch.linalg.svdvals(turned))), expected, rtol=1e-8, atol=1e-10)
    gram = Spectrum.of(torch.linalg.eigvalsh(turned @ turned.T), "eigenvalues")
    torch.testing.assert_close(statistic(gram), expected, rtol=1e-6, atol=1e-8)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_identities_with_the_matrix(seed):
    a = matrix(seed)
    spectrum = Spectrum.of(torch.linalg.svdvals(a))
    covariance = a @ a.T
    torch.testing.assert_close(stable_rank(spectrum), a.square().sum() / torch.linalg.matrix_norm(a, 2) ** 2)
    torch.testing.assert_close(participation_ratio(spectrum), covariance.trace() ** 2 / covariance.square().sum())
    torch.testing.assert_close(condition_number(spectrum), torch.linalg.cond(a))
    torch.testing.assert_close(spectrum.squares().sum(), covariance.trace())


finite = st.floats(0, 2.0**50, width=32, allow_subnormal=False)


@given(values=st.lists(finite, min_size=1, max_size=12).filter(lambda values: max(values) > 0))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("kind", ["singular_values", "eigenvalues"])
def test_ranges_and_order(kind, values):
    spectrum = Spectrum.of(torch.tensor(values, dtype=torch.float64), kind)
    tolerance = 1e-9
    for statistic in RANKS:
        assert 1 - tolerance <= statistic(spectrum) <= len(values) * (1 + tolerance)
    assert -tolerance <= spectral_entropy(spectrum) <= math.log(len(values)) + tolerance
    assert condition_number(spectrum) >= 1
    # Renyi entropies of sigma^2 fall with their order: 1, 2, infinity.
    assert stable_rank(spectrum) <= participation_ratio(spectrum) * (1 + tolerance)
    assert participation_ratio(spectrum) <= spectral_entropy(spectrum).exp() * (1 + tolerance)


@pytest.mark.parametrize("statistic", ALL)
@pytest.mark.parametrize("kind", ["singular_values", "eigenvalues"])
def test_gradients_in_float64(statistic, kind):
    values = torch.tensor([0.3, 2.0, 1.1, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: statistic(Spectrum.of(v, kind)), values)


def test_gradient_of_the_exponent_for_its_range():
    values = (torch.arange(1, 31, dtype=torch.float64) ** -0.7 + 0.001).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: exponent(Spectrum.of(v)), values, eps=1e-9, atol=1e-4)


@pytest.mark.parametrize("statistic", ENTROPIC)
@pytest.mark.parametrize("kind", ["singular_values", "eigenvalues"])
def test_zeros_and_ties_have_finite_gradients(statistic, kind):
    values = torch.tensor([2.0, 2.0, 1.0, 0.0, 0.0], requires_grad=True)
    statistic(Spectrum.of(values, kind)).backward()
    assert values.grad.isfinite().all()
    # What is invariant to scale has no slope along the spectrum itself.
    torch.testing.assert_close(values.grad @ values.detach(), torch.tensor(0.0), rtol=0, atol=1e-6)
    assert values.grad.abs().max() > 0 or statistic is stable_rank


@pytest.mark.parametrize("statistic", [*ALL, exponent])
def test_an_all_zero_spectrum_is_refused(statistic):
    with pytest.raises(ValueError, match="largest is 0"):
        statistic(Spectrum.of([0.0, 0.0]))


@pytest.mark.parametrize("statistic", [*ALL, exponent])
def test_negative_eigenvalues_are_refused(statistic):
    with pytest.raises(ValueError, match="Gram or covariance"):
        statistic(Spectrum.of([1.0, -0.5], "eigenvalues"))
