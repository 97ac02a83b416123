"""Modes captured, high quality and reverse KL on samples whose answer is known."""

import math

import pytest
import torch
from scipy.stats import chi2, entropy

from lsdr.gan.measures.mode_coverage import class_coverage, mode_coverage, tail_mass
from lsdr.gan.mixtures import MIXTURES, Mixture

GRID, RING = MIXTURES["grid"], MIXTURES["ring"]
OFF = math.exp(-4.5)  # P(more than 3 standard deviations away) in the plane, exactly


def test_a_generator_that_returns_one_image():
    found = mode_coverage(GRID.means[3].repeat(100, 1), GRID)
    assert (found.modes, found.high_quality, found.samples) == (1, 1.0, 100)
    assert found.reverse_kl == pytest.approx(math.log(25))
    assert found.reverse_kl_all == pytest.approx(math.log(25 / (1 - OFF)))
    assert found.counts[3] == 100


def test_samples_of_no_mode():
    found = mode_coverage(torch.full((50, 2), 1.0), GRID)
    assert (found.modes, found.high_quality, found.reverse_kl) == (0, 0.0, None)
    assert found.reverse_kl_all == pytest.approx(4.5)  # -ln of the share that belongs there


@pytest.mark.parametrize("mixture", [RING, GRID], ids=["ring", "grid"])
def test_high_quality_ends_at_three_standard_deviations(mixture):
    direction = torch.tensor([0.6, 0.8])
    inside = mode_coverage(mixture.means + 2.99 * mixture.std * direction, mixture)
    outside = mode_coverage(mixture.means + 3.01 * mixture.std * direction, mixture)
    assert (inside.modes, inside.high_quality) == (mixture.modes, 1.0)
    assert (outside.modes, outside.high_quality) == (0, 0.0)


def test_values_that_are_not_finite_belong_to_no_mode():
    samples = GRID.means.clone()
    samples[0, 0], samples[1, 1], samples[2] = math.nan, math.inf, -math.inf
    found = mode_coverage(samples, GRID)
    assert found.modes == 22
    assert found.high_quality == pytest.approx(22 / 25)
    assert mode_coverage(torch.full((4, 2), math.nan), GRID).modes == 0


def test_divergences_are_scipys():
    generator = torch.Generator().manual_seed(0)
    samples = GRID.means[torch.randint(6, (300,), generator=generator)]
    samples = torch.cat([samples, torch.randn(100, 2, generator=generator) * 3])
    found = mode_coverage(samples, GRID)
    counts, off = found.counts.double(), 400 - int(found.counts.sum())
    assert off > 50
    assert found.reverse_kl == pytest.approx(entropy(counts.numpy(), torch.ones(25).numpy()))
    shares = torch.cat([torch.tensor([off]), counts]).numpy()
    expected = torch.tensor([OFF] + [(1 - OFF) / 25] * 25).numpy()
    assert found.reverse_kl_all == pytest.approx(entropy(shares, expected))


def test_order_and_precision_do_not_matter():
    samples = GRID.sample(500, torch.Generator().manual_seed(1))
    found, again = mode_coverage(samples, GRID), mode_coverage(samples.flip(0).double(), GRID)
    assert torch.equal(found.counts, again.counts)
    assert found.reverse_kl == pytest.approx(again.reverse_kl)


def test_three_dimensions_have_their_own_tail():
    for dimensions in (1, 2, 3, 10):
        assert tail_mass(dimensions) == pytest.approx(chi2.sf(9, dimensions))
    cube = Mixture("cube", torch.eye(3), 0.1)
    assert mode_coverage(cube.means, cube).modes == 3


def test_wrong_samples_are_refused():
    with pytest.raises(ValueError, match="2 coordinates"):
        mode_coverage(torch.zeros(5, 3), GRID)
    with pytest.raises(ValueError, match="at least one sample"):
        mode_coverage(torch.zeros(0, 2), GRID)


def test_classes():
    found = class_coverage(torch.tensor([0, 0, 3, 9, -1, 10]), 10)
    assert (found.modes, found.samples, found.reverse_kl_all) == (3, 6, None)
    assert found.high_quality == pytest.approx(4 / 6)
    assert found.reverse_kl == pytest.approx(entropy([2, 1, 1] + [0] * 7, [1] * 10))
    assert class_coverage(torch.arange(10), 10).reverse_kl == pytest.approx(0, abs=1e-12)
    nothing = class_coverage(torch.tensor([-1, -1]), 10)
    assert (nothing.modes, nothing.reverse_kl) == (0, None)
    with pytest.raises(ValueError, match="at least one label"):
        class_coverage(torch.zeros(0, dtype=torch.int64), 10)
