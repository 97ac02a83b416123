import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.regression.criteria import adjusted_r2, aic, bic, mallows_cp


@pytest.fixture(scope="module")
def fits():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 4))
    y = x @ [1.0, 0.5, 0.0, 0.2] + rng.normal(size=40)
    return [sm.OLS(y, sm.add_constant(x[:, :k])).fit() if k else sm.OLS(y, np.ones(40)).fit() for k in (4, 3, 2, 1, 0)]


def test_differences_are_those_of_statsmodels(fits):
    rss = np.array([fit.ssr for fit in fits])
    parameters = np.array([fit.df_model + 1 for fit in fits])
    ours, theirs = aic(rss, 40, parameters), np.array([fit.aic for fit in fits])
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-10)
    # extractAIC leaves the constant n (1 + log 2 pi) out.
    np.testing.assert_allclose(theirs - ours, 40 * (1 + np.log(2 * np.pi)), rtol=1e-12)
    np.testing.assert_allclose(np.diff(bic(rss, 40, parameters)), np.diff([fit.bic for fit in fits]), rtol=1e-10)


def test_adjusted_r2_is_that_of_statsmodels(fits):
    full = fits[0]
    found = adjusted_r2(
        np.array([fit.ssr for fit in fits]), full.centered_tss, np.array([fit.df_resid for fit in fits]), 39
    )
    np.testing.assert_allclose(found, [fit.rsquared_adj for fit in fits], rtol=1e-12, atol=1e-15)


def test_cp_of_the_full_model_is_its_number_of_parameters(fits):
    full = fits[0]
    assert mallows_cp(full.ssr, 40, 5, full.mse_resid) == pytest.approx(5)
    # Cp as Mallows writes it: RSS / s^2 - n + 2 p.
    small = fits[3]
    assert mallows_cp(small.ssr, 40, 2, full.mse_resid) == pytest.approx(small.ssr / full.mse_resid - 40 + 4)


def test_r_prints_these_for_hald():
    # step(lm(y ~ x1 + x2 + x3 + x4)): AIC 26.944, and 24.974 without x3.
    np.testing.assert_allclose(aic(np.array([47.86364, 47.97273]), 13, np.array([5, 4])), [26.944, 24.974], atol=5e-4)


def test_exact_and_impossible_fits():
    assert aic(0.0, 10, 2) == -np.inf
    assert np.isnan(aic(1.0, 0, 2))
    assert np.isnan(bic(1.0, 0, 2))
    assert np.isnan(mallows_cp(1.0, 10, 2, 0.0))
    assert np.isnan(mallows_cp(np.array([1.0, 2.0]), 10, np.array([2, 1]), float("nan"))).all()
    assert np.isnan(adjusted_r2(1.0, 0.0, 5, 9))
    assert np.isnan(adjusted_r2(1.0, 2.0, 0, 9))
    assert adjusted_r2(1.0, 2.0, 5, 9) == pytest.approx(1 - (1 / 5) / (2 / 9))
