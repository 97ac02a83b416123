import numpy as np
import pytest
from scipy import stats

from lsdr.experiments.bootstrap import paired_bootstrap, seeds_needed, wilson_interval


@pytest.mark.parametrize("statistic", [np.median, np.mean])
@pytest.mark.parametrize("count", [5, 12, 40])
def test_percentile_interval_agrees_with_scipy(statistic, count):
    values = np.random.default_rng(count).normal(0.3, 1.0, count)
    other = stats.bootstrap(
        (values,), statistic, n_resamples=10_000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    # Two independent resamplings: a quantile of 10,000 wobbles by about a percent of the spread.
    np.testing.assert_allclose(paired_bootstrap(values, statistic), other, atol=0.06 * values.std())


def test_level_is_obeyed():
    values = np.random.default_rng(0).normal(size=30)
    other = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", confidence_level=0.5, rng=3)
    np.testing.assert_allclose(paired_bootstrap(values, np.mean, level=0.5), other.confidence_interval, atol=0.02)


@pytest.mark.parametrize(("count", "least", "most"), [(5, 0.91, 0.96), (15, 0.92, 0.985)])
def test_coverage_of_the_median(count, least, most):
    # At n = 5 the interval is the range of the data, whose coverage is exactly 1 - 2**-4 = 0.9375.
    rng = np.random.default_rng(1)
    covered = 0
    for number in range(1000):
        low, high = paired_bootstrap(rng.standard_t(4, count) + 2.0, resamples=1000, seed=number)
        covered += low <= 2.0 <= high
    assert least < covered / 1000 < most


def test_same_seed_same_interval():
    values = [0.1, 0.5, -0.2, 0.9, 0.4, 0.33]
    assert paired_bootstrap(values, np.mean) == paired_bootstrap(values, np.mean)
    assert paired_bootstrap(values, np.mean, seed=1) != paired_bootstrap(values, np.mean)


def test_shift_and_scale():
    values = np.array([0.1, 0.5, -0.2, 0.9, 0.4, 0.33])
    low, high = paired_bootstrap(values)
    np.testing.assert_allclose(paired_bootstrap(3 * values + 1), (3 * low + 1, 3 * high + 1))


def test_equal_differences_give_a_point():
    assert paired_bootstrap([0.0] * 5) == (0.0, 0.0)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [1.0, float("inf")], [[1.0, 2.0]]])
def test_wrong_differences(values):
    with pytest.raises(ValueError, match="finite differences"):
        paired_bootstrap(values)


def test_wrong_level():
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        paired_bootstrap([1.0], level=95.0)


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (1, 5), (3, 7), (5, 5), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, trials, level):
    other = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials, level), other, atol=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 4)])
def test_wilson_refuses(successes, trials):
    with pytest.raises(ValueError, match="successes <= trials"):
        wilson_interval(successes, trials)


def test_planned_seeds_have_the_power():
    effect, spread = 0.5, 0.8
    observed = effect + spread * np.array([-1.0, 1.0, 0.0, -1.0, 1.0])  # median 0.5, sd 0.8
    count = seeds_needed(observed)
    rng = np.random.default_rng(2)
    shown = sum(paired_bootstrap(rng.normal(effect, spread, count), resamples=1000)[0] > 0 for _ in range(400))
    assert 0.7 < shown / 400 < 0.9


@pytest.mark.parametrize("values", [[0.3], [], [-1.0, 1.0], [0.0, 0.0, 0.0]])
def test_no_plan_where_nothing_can_be_told(values):
    assert seeds_needed(values) is None


def test_plan_is_at_least_five():
    assert seeds_needed([1.0, 1.0, 1.001]) == 5
