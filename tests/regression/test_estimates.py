import json
import math

import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.regression.estimates import Estimates, finite


@pytest.fixture
def fitted():
    rng = np.random.default_rng(0)
    x = sm.add_constant(rng.normal(size=(40, 3)))
    return sm.OLS(x @ [1.0, 2.0, -0.5, 0.0] + rng.normal(size=40), x).fit()


def of(fitted, df=None):
    names = ("Intercept", "a", "b", "c")
    return Estimates(names, np.asarray(fitted.params), np.asarray(fitted.bse), fitted.df_resid if df is None else df)


def test_everything_is_statsmodels(fitted):
    found = of(fitted)
    np.testing.assert_allclose(found.tvalues, fitted.tvalues, rtol=1e-14)
    np.testing.assert_allclose(found.pvalues, fitted.pvalues, rtol=1e-11)
    for alpha in (0.05, 0.3):
        np.testing.assert_allclose(found.conf_int(alpha), fitted.conf_int(alpha), rtol=1e-11)
    assert list(found.conf_int().columns) == [0, 1]
    assert list(found.params.index) == list(found.conf_int().index) == ["Intercept", "a", "b", "c"]


def test_infinite_degrees_of_freedom_are_the_normal_distribution(fitted):
    normal = fitted.model.fit(cov_type="HC1")
    found = Estimates(("i", "a", "b", "c"), np.asarray(normal.params), np.asarray(normal.bse), math.inf)
    np.testing.assert_allclose(found.pvalues, normal.pvalues, rtol=1e-11)
    np.testing.assert_allclose(found.conf_int(), normal.conf_int(), rtol=1e-11)


def test_tiny_p_values_do_not_underflow_early():
    found = Estimates(("a",), np.array([40.0]), np.array([1.0]), 500.0)
    assert 0 < found.pvalues["a"] < 1e-150


def test_exact_fit_and_no_degrees_of_freedom():
    exact = Estimates(("a", "b", "c"), np.array([1.0, -2.0, 0.0]), np.zeros(3), 5)
    assert exact.tvalues.tolist()[:2] == [math.inf, -math.inf]
    assert exact.pvalues.tolist()[:2] == [0.0, 0.0]
    assert math.isnan(exact.tvalues["c"])
    undefined = Estimates(("a",), np.ones(1), np.array([math.nan]), 0)
    assert undefined.tvalues.isna().all()
    assert undefined.pvalues.isna().all()
    assert undefined.conf_int().isna().all(axis=None)
    json.dumps(exact.to_json(), allow_nan=False)
    json.dumps(undefined.to_json(), allow_nan=False)
    assert exact.to_json()["tvalues"] == {"a": None, "b": None, "c": None}
    assert exact.to_json()["params"] == {"a": 1.0, "b": -2.0, "c": 0.0}


def test_json_has_intervals_by_name(fitted):
    low, high = of(fitted).to_json()["conf_int"]["b"]
    np.testing.assert_allclose([low, high], fitted.conf_int()[2], rtol=1e-11)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0, math.nan])
def test_alpha_must_be_a_share(fitted, alpha):
    with pytest.raises(ValueError, match="between 0 and 1"):
        of(fitted).conf_int(alpha)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="2 names"):
        Estimates(("a", "b"), np.ones(2), np.ones(3), 1)


def test_finite():
    assert finite(1) == 1.0
    assert finite(math.inf) is finite(-math.inf) is finite(math.nan) is None
