import math

import pytest
import torch

from lsdr.spectrum import Spectrum
from lsdr.statistics import power_law_exponent as module
from lsdr.statistics.power_law_exponent import power_law_exponent


def pareto(n, alpha, seed=0):
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1 - uniform) ** (-1 / (alpha - 1))


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0])
def test_finds_the_exponent_of_pareto_samples_within_its_standard_error(alpha):
    fit = power_law_exponent(Spectrum.of(pareto(3000, alpha), "eigenvalues"))
    error = (alpha - 1) / fit.count**0.5
    assert abs(fit.exponent - alpha) < 3 * error
    assert fit.count > 300


def test_the_range_leaves_the_bulk_out():
    """A Pareto tail from 10 on, above a uniform bulk."""
    tail = 10 * pareto(400, 3.0)
    bulk = 10 * torch.rand(600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fit = power_law_exponent(Spectrum.of(torch.cat([tail, bulk]), "eigenvalues"))
    assert 8 < fit.xmin < 20
    assert abs(fit.exponent - 3) < 0.4
    assert fit.xmax == tail.max()
    assert fit.distance < 0.05


def test_of_singular_values_it_is_the_exponent_of_the_squares():
    squares = pareto(200, 2.5)
    one, other = (
        power_law_exponent(Spectrum.of(squares, "eigenvalues")),
        power_law_exponent(Spectrum.of(squares.sqrt())),
    )
    torch.testing.assert_close(one.exponent, other.exponent)
    torch.testing.assert_close(one.xmin, other.xmin)
    assert one.count == other.count


def test_two_values_by_hand():
    """alpha = 1 + 2 / log(4); the fit says 0 at the smaller value and 1 - exp(-2) at the larger."""
    fit = power_law_exponent(Spectrum.of([4.0, 1.0], "eigenvalues"))
    torch.testing.assert_close(fit.exponent, torch.tensor(1 + 2 / math.log(4)))
    assert (fit.count, fit.xmin, fit.xmax) == (2, 1, 4)
    torch.testing.assert_close(fit.distance, torch.tensor(0.5))


def test_zeros_are_left_out_and_ties_stay_together():
    fit = power_law_exponent(Spectrum.of([8.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0], "eigenvalues"))
    assert fit.count in (3, 7)
    assert fit.xmin in (2, 4)


def test_blocks_make_no_difference(monkeypatch):
    spectrum = Spectrum.of(pareto(100, 2.0))
    whole = power_law_exponent(spectrum)
    monkeypatch.setattr(module, "_BLOCK", 700)
    assert power_law_exponent(spectrum).exponent == whole.exponent


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [3.0, 0.0]])
def test_one_distinct_value_has_no_exponent(values):
    with pytest.raises(ValueError, match="two different positive values"):
        power_law_exponent(Spectrum.of(values))
