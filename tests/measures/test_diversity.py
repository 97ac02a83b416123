"""Diversity against brute force."""

import pytest
import torch

from lsdr.measures.diversity import diversity


def images(count, seed=0, dtype=torch.float32):
    return torch.randn(count, 2, 3, 5, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def brute(a, b, itself=False):
    nearest = []
    for i, x in enumerate(a):
        others = [(x - y).square().mean().sqrt() for j, y in enumerate(b) if not (itself and i == j)]
        nearest.append(min(others))
    return torch.stack(nearest).mean()


@pytest.mark.parametrize("chunk", [1, 4, 7, 1024])
def test_brute_force_agrees_whatever_the_chunks(chunk):
    samples, data = images(9, dtype=torch.float64), images(13, 1, torch.float64)
    found = diversity(samples, data, chunk=chunk)
    covariances = [torch.cov(x.flatten(1).T).trace() for x in (samples, data)]
    torch.testing.assert_close(found.variance, covariances[0] / covariances[1])
    torch.testing.assert_close(found.nearest_neighbour, brute(samples, samples, itself=True))
    torch.testing.assert_close(found.nearest_train, brute(samples, data))


def test_copies_of_the_training_data_have_distance_exactly_zero():
    data = images(50) + 3
    found = diversity(data[10:20], data, chunk=7)
    assert found.nearest_train == 0
    assert found.nearest_neighbour > 0.5


def test_near_copies_keep_their_distance():
    # Far from the origin, where a distance by |a|^2 + |b|^2 - 2ab has lost these digits.
    data = images(50, dtype=torch.float64) + 1e3
    found = diversity(data[:10] + 1e-6, data)
    assert found.nearest_train.item() == pytest.approx(1e-6, rel=1e-3)


def test_a_collapsed_sampler_has_no_diversity():
    found = diversity(images(1).expand(6, -1, -1, -1), images(10, 1))
    assert found.variance == 0
    assert found.nearest_neighbour == 0
    assert found.nearest_train > 0


def test_the_variance_ratio_does_not_depend_on_the_number_of_samples():
    small = torch.stack([diversity(images(4, seed), images(500, 1000)).variance for seed in range(300)]).mean()
    assert small.item() == pytest.approx(1, abs=0.05)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="same shape"):
        diversity(images(4), images(4)[..., :3])
    with pytest.raises(ValueError, match="at least 2"):
        diversity(images(1), images(4))


def test_data_that_do_not_vary_have_no_variance_to_compare_with():
    found = diversity(images(4), torch.ones(4, 2, 3, 5))
    assert found.variance == torch.inf
    assert found.nearest_train > 0
