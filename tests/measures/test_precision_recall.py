"""Precision, recall, density and coverage: closed forms, degenerate inputs, memory."""

import math

import pytest
import torch

from lsdr.measures import nearest as nearest_module
from lsdr.measures import precision_recall as module
from lsdr.measures.nearest import nearest
from lsdr.measures.precision_recall import precision_recall


def draws(count, dimensions, seed):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def numbers(found):
    return [float(value) for value in (found.precision, found.recall, found.density, found.coverage)]


@pytest.mark.parametrize("dimensions", [1, 2, 40])
def test_density_and_coverage_of_equal_distributions_do_not_depend_on_the_space(dimensions):
    """Their means are 1 and 1 - prod (m - i) / (m + n - i): each point is as likely as any to be among the nearest."""
    n, m, k = 40, 60, 3
    found = torch.tensor(
        [
            numbers(precision_recall(draws(n, dimensions, 2 * seed), draws(m, dimensions, 2 * seed + 1), k=k))
            for seed in range(150)
        ]
    )
    error = found.std(0) / 150**0.5
    coverage = 1 - math.prod((m - i) / (m + n - i) for i in range(1, k + 1))
    assert abs(found[:, 2].mean() - 1) < 4 * error[2]
    assert abs(found[:, 3].mean() - coverage) < 4 * error[3]
    # Precision and recall trade places when samples and data do.
    swapped = numbers(precision_recall(draws(m, dimensions, 1), draws(n, dimensions, 0), k=k))
    assert swapped[:2] == numbers(precision_recall(draws(n, dimensions, 0), draws(m, dimensions, 1), k=k))[1::-1]


def test_equal_distributions_in_a_thousand_dimensions_are_far_from_one():
    precision, recall, density, coverage = numbers(precision_recall(draws(1000, 1000, 0), draws(1000, 1000, 1)))
    assert 0.5 < precision < 0.7
    assert 0.5 < recall < 0.7
    assert density == pytest.approx(1, abs=0.15)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.03)


def test_half_of_the_data_is_missed_and_a_quarter_of_the_samples_is_off():
    data = draws(400, 2, 0)
    data[200:] += 100
    samples = draws(400, 2, 1)
    samples[:100] -= 100
    precision, recall, density, coverage = numbers(precision_recall(samples, data))
    assert precision == pytest.approx(0.75, abs=0.03)
    assert recall == pytest.approx(0.5, abs=0.03)
    assert coverage == pytest.approx(0.5, abs=0.05)
    assert 0.5 < density < 1.6


def test_shift_rotation_and_scale_change_nothing():
    samples, data = draws(200, 5, 0), draws(150, 5, 1)
    rotation = torch.linalg.qr(draws(5, 5, 2).double()).Q
    moved = precision_recall(1e3 + 0.01 * samples.double() @ rotation, 1e3 + 0.01 * data.double() @ rotation)
    assert numbers(moved) == pytest.approx(numbers(precision_recall(samples, data)), abs=1e-9)


@pytest.mark.parametrize("place", [0.0, 0.3])
def test_one_image_repeated_has_no_recall(place):
    data = draws(100, 3, 0)
    precision, recall, _, coverage = numbers(precision_recall(torch.full((50, 3), place), data))
    assert recall == 0
    assert precision in (0, 1)
    assert coverage < 0.3


def test_copies_of_the_data_lie_in_it():
    data = draws(100, 3, 0)
    precision, recall, density, coverage = numbers(precision_recall(data, data))
    assert (precision, recall, coverage) == (1, 1, 1)
    # Each open ball holds its own centre and the neighbours before the fifth.
    assert density == pytest.approx(1.0)
    with pytest.raises(ValueError, match="more than k=5"):
        precision_recall(data[:5], data)


def test_constant_data_hold_nothing():
    constant = torch.ones(20, 2)
    assert numbers(precision_recall(constant, constant)) == [0, 0, 0, 0]
    assert numbers(precision_recall(draws(20, 2, 0), constant))[1] > 0


def test_samples_that_are_not_finite_count_and_hold_nothing():
    data, samples = draws(100, 2, 0), draws(80, 2, 1)
    whole = numbers(precision_recall(samples, data))
    broken = torch.cat([samples, torch.full((80, 2), math.nan)])
    broken[-1] = math.inf
    half = numbers(precision_recall(broken, data))
    assert half == pytest.approx([whole[0] / 2, whole[1], whole[2] / 2, whole[3]])
    assert numbers(precision_recall(broken[80:], data)) == [0, 0, 0, 0]
    broken[:4] = samples[:4]
    assert numbers(precision_recall(broken[[*range(4), *range(80, 100)]], data))[1] == 0
    with pytest.raises(ValueError, match="not finite"):
        precision_recall(data, broken)


def test_points_at_the_radius_are_outside_whatever_rounding_does():
    """On a lattice every distance is a tie."""
    line = torch.arange(40, dtype=torch.float64)[:, None] * 0.1 + 1000.3
    found = precision_recall(line + 0.1, line, k=1)
    # The nearest other point is a step away; so is the next sample, and only the equal one is inside.
    assert numbers(found) == pytest.approx([39 / 40, 39 / 40, 39 / 40, 39 / 40])


def test_blocks_change_nothing_and_bound_the_memory(monkeypatch):
    samples, data = draws(230, 4, 0), draws(170, 4, 1)
    whole = numbers(precision_recall(samples, data))
    sizes = []

    def watched(a, b):
        sizes.append(len(a) * len(b))
        return original(a, b)

    original = nearest_module.squared_distances
    for place in (module, nearest_module):
        monkeypatch.setattr(place, "squared_distances", watched)
    assert numbers(precision_recall(samples, data, chunk=32)) == whole
    assert max(sizes) == 32 * 32


def test_nearest_is_the_sorted_matrix_of_distances():
    # Far from the origin, where the fast formula alone would lose all digits.
    queries, candidates = draws(50, 3, 0).double() + 1e5, draws(70, 3, 1).double() + 1e5
    expected = torch.cdist(queries, candidates, compute_mode="donot_use_mm_for_euclid_dist").sort(1)
    distance, index = nearest(queries, candidates, 4, chunk=16)
    torch.testing.assert_close(distance, expected.values[:, :4], rtol=1e-9, atol=1e-9)
    assert torch.equal(index, expected.indices[:, :4])
    own, itself = nearest(candidates, candidates, 1, itself=True, chunk=16)
    assert not (itself[:, 0] == torch.arange(70)).any()
    assert own.min() > 0
    with pytest.raises(ValueError, match="cannot be found"):
        nearest(queries, candidates[:3], 3, itself=True)
    assert nearest(queries[:0], candidates, 2)[0].shape == (0, 2)
