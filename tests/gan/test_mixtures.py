"""The two mixtures, and draws from them."""

import math

import pytest
import torch

from lsdr.gan.mixtures import MIXTURES, MixtureDataset


def test_ring_and_grid_are_the_published_ones():
    ring, grid = MIXTURES["ring"], MIXTURES["grid"]
    assert (ring.modes, ring.std, grid.modes, grid.std) == (8, 0.01, 25, 0.05)
    for number, mean in enumerate(ring.means.tolist()):
        angle = 2 * math.pi * number / 8
        assert mean == pytest.approx([math.cos(angle), math.sin(angle)], abs=1e-6)
    expected = {(x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert {tuple(mean) for mean in grid.means.tolist()} == expected


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_draws_have_the_mixtures_moments(name):
    mixture = MIXTURES[name]
    points = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert points.dtype == torch.float32
    torch.testing.assert_close(points.std(0), mixture.deviation, rtol=0.02, atol=0)
    distance, mode = torch.cdist(points, mixture.means).min(1)
    # In the plane the mean squared distance from a mode's mean is twice its variance.
    assert distance.square().mean().sqrt().item() == pytest.approx(mixture.std * math.sqrt(2), rel=0.02)
    share = mode.bincount(minlength=mixture.modes) / len(points)
    assert (share - 1 / mixture.modes).abs().max() < 0.01


def test_a_dataset_is_decided_by_its_seed():
    grid, state = MIXTURES["grid"], torch.get_rng_state()
    first, same, other = (MixtureDataset(grid, 50, seed) for seed in (3, 3, 4))
    assert torch.equal(first.points, same.points)
    assert not (first.points == other.points).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_are_those_of_the_loop():
    points = MixtureDataset(MIXTURES["ring"], 30, seed=0)
    batch = points.__getitems__(torch.tensor([7, 2, 7]))
    assert batch["index"].tolist() == [7, 2, 7]
    assert batch["index"].dtype == torch.int64
    assert torch.equal(batch["image"], points.points[[7, 2, 7]])
    assert torch.equal(points[7]["image"], points.points[7])
    assert (len(points), points.shape) == (30, (2,))
    assert points.name(7).startswith("ring#7 (")
    with pytest.raises(ValueError, match="at least one point"):
        MixtureDataset(MIXTURES["ring"], 0, seed=0)
