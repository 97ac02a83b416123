"""Trimmed and Huber moments beside scikit-learn's minimum covariance determinant and the plain covariance."""

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance, MinCovDet

from lsdr.robust_moments import huber_moments, trimmed_moments


def planted(share, seed, count=400, dimensions=6):
    """Normal rows with one leading direction, a share of them shifted far along the least."""
    generator = np.random.default_rng(seed)
    scales = np.r_[3.0, np.ones(dimensions - 1)]
    rows = generator.normal(size=(count, dimensions)) * scales
    rows[: int(share * count), -1] += 15
    return rows, np.diag(scales**2)


def errors(covariance, truth):
    return np.linalg.norm(covariance - truth) / np.linalg.norm(truth), abs(np.linalg.eigh(covariance)[1][1:, -1]).max()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_as_good_as_the_minimum_covariance_determinant_and_better_than_plain(share):
    ours, huber, theirs, plain = [], [], [], []
    for seed in range(3):
        rows, truth = planted(share, seed)
        theirs.append(errors(MinCovDet(random_state=0).fit(rows).covariance_, truth))
        ours.append(errors(trimmed_moments(rows, trim=0.1).covariance(), truth))
        huber.append(errors(huber_moments(rows, tail=0.1).covariance(), truth))
        plain.append(errors(EmpiricalCovariance().fit(rows).covariance_, truth))
    ours, huber, theirs, plain = [np.mean(each, axis=0) for each in (ours, huber, theirs, plain)]
    assert (ours < theirs + 0.05).all()
    assert ours[0] < plain[0] / 2
    # What each far row is still allowed adds up: from a share of 1 / k^2 = 0.094 on one side on, Huber's leading
    # direction is theirs too.
    if share < 0.1:
        assert (huber < theirs + 0.1).all()
    assert huber[0] < 0.6 * plain[0]
    if share == 0.1:
        assert plain[0] > 1
        assert plain[1] > 0.9  # its leading direction is the outliers'
        assert ours[1] < 0.2
