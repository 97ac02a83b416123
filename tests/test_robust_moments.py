"""Moments that outliers do not spoil."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from lsdr.moments import Moments
from lsdr.robust_moments import huber_moments, row_weights, trimmed_moments


def planted(share, count=600, dimensions=8, seed=0):
    """Normal rows with a leading plane, a share of them replaced: half far out on one side, half scattered."""
    generator = np.random.default_rng(seed)
    scales = np.r_[4.0, 3.0, np.ones(dimensions - 2)]
    basis = np.linalg.qr(generator.normal(size=(dimensions, dimensions)))[0]
    rows = generator.normal(size=(count, dimensions)) * scales @ basis.T
    bad = int(share * count)
    rows[: bad // 2] = 40 * basis[:, -1] + generator.normal(size=(bad // 2, dimensions))
    rows[bad // 2 : bad] = 30 * generator.standard_t(2, size=(bad - bad // 2, dimensions))
    return rows, (basis * scales**2) @ basis.T, basis[:, :2]


def errors(covariance, truth, plane):
    """Relative error of a covariance, and the sine of the largest angle of its leading plane with the planted one."""
    leading = np.linalg.eigh(covariance)[1][:, -2:]
    cosines = np.linalg.svd(leading.T @ plane)[1]
    return np.linalg.norm(covariance - truth) / np.linalg.norm(truth), float(np.sqrt(max(0, 1 - cosines[-1] ** 2)))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("robust", [trimmed_moments, huber_moments])
def test_contaminated_rows_hardly_move_the_covariance_and_its_plane(robust, share):
    rows, truth, plane = planted(share)
    clean = errors(Moments.of(rows[int(share * len(rows)) :]).covariance(), truth, plane)
    plain = errors(Moments.of(rows).covariance(), truth, plane)
    found = robust(rows)
    error, angle = errors(found.covariance(), truth, plane)
    # Huber's bound on each outlier adds up: its resistance ends near a share of 1 / (D + 1) on one side.
    allowed = 0.15 if robust is trimmed_moments or share < 0.1 else 0.6
    assert error < clean[0] + allowed < plain[0] / 3
    assert angle < clean[1] + 0.1 < plain[1] / 3
    assert np.linalg.norm(found.mean) < 0.6


@pytest.mark.parametrize("robust", [trimmed_moments, huber_moments])
def test_clean_normal_rows_keep_their_covariance_and_linear_maps_pass_through(robust):
    rows, truth, plane = planted(0.0, count=4000)
    assert errors(robust(rows).covariance(), truth, plane)[0] < 0.08
    mapped = np.random.default_rng(1).normal(size=(8, 8))
    np.testing.assert_allclose(
        robust(rows @ mapped + 3).covariance(), mapped.T @ robust(rows).covariance() @ mapped, rtol=1e-2, atol=0.05
    )


def test_trimming_nothing_is_the_plain_moments():
    rows, _, _ = planted(0.05, count=60)
    for distance in ("full", "radial"):
        found = trimmed_moments(rows, trim=0.0, distance=distance)
        np.testing.assert_allclose(found.covariance(), Moments.of(rows).covariance(), rtol=1e-12)
        np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12, atol=1e-12)


def test_the_radial_distance_needs_few_rows():
    rows, _, _ = planted(0.0, count=14)
    rows[0] = 1e4
    with pytest.raises(
        ValueError, match=r"needs 17 or more samples that are kept, got 13 of 14; use distance='radial'"
    ):
        trimmed_moments(rows)
    for robust in (trimmed_moments, huber_moments):
        found = robust(rows, distance="radial")
        assert np.abs(found.mean).max() < 5
        assert np.trace(found.covariance()) < 3 * np.trace(Moments.of(rows[1:]).covariance())


@pytest.mark.parametrize("robust", [trimmed_moments, huber_moments])
def test_torch_rows_give_the_same_with_gradient_and_two_views_count_together(robust):
    rows, _, _ = planted(0.05, count=80)
    x, y = torch.tensor(rows[:, :3], requires_grad=True), torch.tensor(rows[:, 3:])
    found, expected = robust(x, y), robust(rows[:, :3], rows[:, 3:])
    for ours, known in [
        (found.covariance(), expected.covariance()),
        (found.cross_covariance(), expected.cross_covariance()),
        (found.y.covariance(), expected.y.covariance()),
        (found.mean, expected.mean),
    ]:
        np.testing.assert_allclose(ours.detach(), known, rtol=1e-9, atol=1e-9)
    found.covariance().trace().backward()
    outlying, kept = x.grad[0].norm() / x.detach()[0].norm(), x.grad[50].norm() / x.detach()[50].norm()
    assert outlying < 0.1 * kept
    joint = robust(rows).covariance()
    np.testing.assert_allclose(expected.covariance(), joint[:3, :3], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(expected.cross_covariance(), joint[:3, 3:], rtol=1e-9, atol=1e-9)


def test_a_constant_column_is_no_obstacle():
    rows, _, _ = planted(0.05, count=100)
    rows[:, 2] = 7.0
    for robust in (trimmed_moments, huber_moments):
        assert np.isfinite(robust(rows).covariance()).all()


def test_weights_fall_with_the_distance():
    squared = np.array([0.0, 1.0, 4.0, 400.0])
    assert row_weights(squared, 4.0, "trimmed").tolist() == [1, 1, 1, 0]
    assert row_weights(squared, 4.0, "huber").tolist() == [1, 1, 1, 0.01]
    assert row_weights(torch.tensor(squared), 4.0, "huber").tolist() == [1, 1, 1, 0.01]


def test_rows_that_make_no_sense_are_refused():
    rows, _, _ = planted(0.0, count=40)
    with pytest.raises(ValueError, match=r"must be in \[0, 0.5\]"):
        trimmed_moments(rows, trim=0.6)
    with pytest.raises(ValueError, match="for huber above 0"):
        huber_moments(rows, tail=0.0)
    rows[3, 1] = np.nan
    with pytest.raises(ValueError, match="leave such samples out"):
        huber_moments(rows)
    with pytest.raises(ValueError, match=r"rows of shape \(N, D\)"):
        trimmed_moments(np.zeros(4))


def test_a_tight_cluster_of_many_does_not_hide_itself():
    """Judged from the plain mean and covariance, three rows in ten at one place are nearer than most others."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(300, 6))
    rows[:90] = 20 + 0.1 * generator.normal(size=(90, 6))
    found = trimmed_moments(rows, trim=0.4)
    assert np.abs(found.mean).max() < 0.4
    assert np.linalg.eigvalsh(found.covariance())[-1] < 3


def test_normal_rows_have_the_weights_that_the_tail_says():
    rows = np.random.default_rng(0).normal(size=(20000, 8)) @ np.diag(np.arange(1, 9))
    cut = stats.chi2.isf(0.5, 8)
    expected = 0.5 + integrate.quad(lambda d: cut / d * stats.chi2.pdf(d, 8), cut, np.inf)[0]
    assert huber_moments(rows, tail=0.5).count / len(rows) == pytest.approx(expected, abs=3e-3)
