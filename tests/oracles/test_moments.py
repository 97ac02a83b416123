"""Moments against numpy.cov and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lsdr.moments import Moments


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_against_numpy(convert):
    rng = np.random.default_rng(0)
    x, y = 100 + rng.normal(size=(50, 4)), rng.normal(size=(50, 3)) * 7
    moments = Moments()
    for start in range(0, 50, 17):
        moments.update(convert(x[start : start + 17]), convert(y[start : start + 17]))
    joint = np.cov(x.T, y.T, bias=True)
    np.testing.assert_allclose(moments.covariance(), joint[:4, :4], rtol=1e-10)
    np.testing.assert_allclose(moments.cross_covariance(), joint[:4, 4:], rtol=1e-10)
    np.testing.assert_allclose(moments.y.covariance(), joint[4:, 4:], rtol=1e-10)
    np.testing.assert_allclose(moments.covariance(correction=1), np.cov(x.T), rtol=1e-10)
    np.testing.assert_allclose(moments.cross_covariance(correction=1), np.cov(x.T, y.T)[:4, 4:], rtol=1e-10)


def test_eigenvalues_against_principal_components():
    rows = np.random.default_rng(1).normal(size=(40, 5)) @ np.diag([5, 4, 3, 2, 1]) + 50
    expected = PCA(svd_solver="full").fit(rows).explained_variance_
    moments = Moments.of(rows[:13]).merge(Moments.of(rows[13:]))
    np.testing.assert_allclose(np.linalg.eigvalsh(moments.covariance(correction=1))[::-1], expected, rtol=1e-10)
