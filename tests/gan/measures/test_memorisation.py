"""Copies of training examples, and what only looks like them."""

import pytest
import torch

from lsdr.gan.measures.memorisation import memorisation

DRAWS = torch.randn(1500, 8, generator=torch.Generator().manual_seed(0))
TRAIN, HELDOUT, FRESH = DRAWS.split(500)


def test_a_generator_that_repeats_its_examples():
    found = memorisation(TRAIN[100:200], TRAIN, HELDOUT)
    assert (found.copies, found.closer_than_heldout) == (1.0, 1.0)
    assert found.index.tolist() == list(range(100, 200))
    assert found.distance.max() == 0


def test_small_changes_do_not_hide_a_copy():
    noise = 1e-3 * torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    found = memorisation(TRAIN + noise, TRAIN, HELDOUT)
    assert found.copies == 1.0
    torch.testing.assert_close(found.distance, noise.double().square().mean(1).sqrt(), rtol=1e-3, atol=0)


def test_half_copies():
    found = memorisation(torch.cat([TRAIN[:250], FRESH[:250]]), TRAIN, HELDOUT)
    assert found.copies == pytest.approx(0.5, abs=0.01)


def test_a_perfect_sampler_does_not_copy():
    found = memorisation(FRESH, TRAIN, HELDOUT)
    assert found.copies < 0.01
    assert found.closer_than_heldout == pytest.approx(0.5, abs=0.05)


def test_by_chance_a_point_of_the_plane_looks_like_a_copy_one_time_in_nine():
    points = torch.rand(6000, 2, generator=torch.Generator().manual_seed(2))
    found = memorisation(points[:2000], points[2000:4000], points[4000:])
    assert found.copies == pytest.approx(1 / 9, abs=0.025)
    assert found.heldout_copies == pytest.approx(1 / 9, abs=0.025)


def test_one_image_is_a_copy_only_of_its_own():
    assert memorisation(FRESH[:1].repeat(20, 1), TRAIN, HELDOUT).copies == 0
    assert memorisation(TRAIN[:1].repeat(20, 1), TRAIN, HELDOUT).copies == 1


def test_far_samples_are_farther_than_heldout_examples():
    assert memorisation(FRESH + 100, TRAIN, HELDOUT).closer_than_heldout == 0


def test_duplicates_in_the_data_leave_equal_samples_copies():
    doubled = torch.cat([TRAIN, TRAIN])
    assert memorisation(TRAIN[:10], doubled, HELDOUT).copies == 1
    # Ties count half: a training set that holds the held-out examples tells nothing.
    assert memorisation(TRAIN[:10], doubled, TRAIN).closer_than_heldout == 0.5


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="2 training examples"):
        memorisation(FRESH, TRAIN[:1], HELDOUT)
