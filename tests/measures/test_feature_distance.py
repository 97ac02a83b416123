"""FID and KID against independent computations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from lsdr.measures.feature_distance import feature_distance


def images(count, seed=0, shift=0.0, scale=1.0):
    noise = torch.randn(count, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mixing = torch.linspace(0.5, 1.5, 8, dtype=torch.float64).view(1, 2, 4)
    return shift + scale * mixing * noise


def scipy_fid(a, b):
    a, b = a.flatten(1).numpy(), b.flatten(1).numpy()
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)


def brute_kid(a, b):
    """The unbiased estimator, term by term."""
    a, b = a.flatten(1).numpy(), b.flatten(1).numpy()

    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])


def test_fid_is_scipys():
    a, b = images(60), images(80, 1, 0.5, 1.3)
    assert feature_distance(a, b, nn.Flatten()).fid.item() == pytest.approx(scipy_fid(a, b), rel=1e-8)


def test_fid_of_gaussians_is_the_closed_form():
    # Independent features: sum of (difference of means)^2 + (difference of standard deviations)^2.
    mixing = torch.linspace(0.5, 1.5, 8, dtype=torch.float64)
    found = feature_distance(images(40_000, 1, 0.5, 2.0), images(40_000), nn.Flatten()).fid
    assert found.item() == pytest.approx(8 * 0.25 + mixing.square().sum().item(), rel=0.02)


def test_kid_is_the_unbiased_estimator():
    a, b = images(15), images(15, 1, 0.5, 1.3)
    assert feature_distance(a, b, nn.Flatten()).kid.item() == pytest.approx(brute_kid(a, b), rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average():
    flatten = nn.Flatten()
    values = torch.stack([feature_distance(images(20, 2 * s), images(20, 2 * s + 1), flatten).kid for s in range(150)])
    assert values.mean().abs() < 3 * values.std() / 150**0.5
    assert values.min() < 0 < values.max()
    apart = feature_distance(images(20), images(20, 1, 1.0), flatten).kid
    assert apart > values.max()


def test_identical_sets_have_no_frechet_distance():
    assert abs(feature_distance(images(50), images(50), nn.Flatten()).fid.item()) < 1e-7


def test_uneven_sets_use_subsets_from_the_generator_alone():
    a, b = images(20), images(50, 1)
    before = torch.get_rng_state()

    def kid(seed):
        return feature_distance(a, b, nn.Flatten(), generator=torch.Generator().manual_seed(seed)).kid

    assert kid(0) == kid(0)
    assert kid(0) != kid(1)
    assert torch.equal(before, torch.get_rng_state())


def test_the_extractor_is_measured_in_evaluation_mode_in_batches_and_left_as_it_was():
    extractor = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5, dtype=torch.float64))
    whole = feature_distance(images(30), images(30, 1), extractor)
    parts = feature_distance(images(30), images(30, 1), extractor, batch=7)
    torch.testing.assert_close(whole.fid, parts.fid)
    torch.testing.assert_close(whole.kid, parts.kid)
    assert all(module.training for module in extractor.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in extractor.parameters())


def test_what_has_no_features_is_refused():
    with pytest.raises(ValueError, match="got 1 and 5"):
        feature_distance(images(1), images(5), nn.Flatten())
    with pytest.raises(ValueError, match=r"finite \(n, d\) features"):
        feature_distance(images(5), images(5), nn.Identity())
    with pytest.raises(ValueError, match="finite"):
        feature_distance(images(5) / 0, images(5), nn.Flatten())
