"""Robust errors through the whole call, against statsmodels: every step, the chosen model, the honest half."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from lsdr.regression.backward_elimination import backward_elimination


@pytest.fixture(scope="module")
def houses():
    generator = np.random.default_rng(4)
    n = 400
    frame = pd.DataFrame(generator.normal([0, 100, 3, 0], size=(n, 4)), columns=["area", "year", "rooms", "noise"])
    frame["region"] = generator.choice(["east", "north", "south"], size=n)
    frame["street"] = generator.choice([f"street {i}" for i in range(25)], size=n)
    frame["count"] = generator.integers(1, 4, size=n).astype(float)
    shared = dict(zip(sorted(frame.street.unique()), generator.normal(size=25), strict=True))
    frame["price"] = (
        frame.area + 0.3 * frame.rooms + 0.5 * (frame.region == "north") + frame.street.map(shared)
        + np.exp(0.5 * frame.area) * generator.normal(size=n)
    )  # fmt: skip
    return frame


FEATURES = ["area", "year", "rooms", "noise", "region"]


def compare(result, frame, tolerance=1e-8, **fit):
    for step in result.steps:
        right = " + ".join(f"C({term})" if term == "region" else term for term in step.terms) or "1"
        theirs = smf.ols(f"price ~ {right}", frame).fit(**fit)
        names = [name.replace("C(region)[T.", "region[") for name in theirs.bse.index]
        ours = result.model(step.size).bse
        assert sorted(ours.index) == sorted(names)
        np.testing.assert_allclose(ours[names], theirs.bse, rtol=tolerance)


@pytest.mark.parametrize("kind", ["HC0", "HC3"])
@pytest.mark.parametrize("method", ["gram", "qr"])
def test_every_step_of_a_table_with_a_factor(houses, kind, method):
    result = backward_elimination(houses, "price", features=FEATURES, errors=kind, method=method, workers=1)
    assert "exact" in result.errors
    compare(result, houses, cov_type=kind)


def test_frequencies(houses):
    result = backward_elimination(
        houses, "price", features=FEATURES, errors="HC1", weights="count", weight_kind="frequency", split=False
    )
    compare(result, houses.loc[houses.index.repeat(houses["count"].astype(int))], cov_type="HC1")


@pytest.mark.parametrize("one_shot", [True, False])
def test_clusters_in_one_pass(houses, one_shot):
    source = iter([houses.iloc[:150], houses.iloc[150:]]) if one_shot else houses
    result = backward_elimination(source, "price", features=FEATURES, clusters="street", workers=1)
    compare(result, houses, cov_type="cluster", cov_kwds={"groups": pd.factorize(houses.street)[0]})
    assert result.steps[0].estimates.df == 24


def test_an_iterator_cannot_have_errors_that_read_it_again(houses):
    with pytest.raises(ValueError, match="function that returns"):
        backward_elimination(iter([houses]), "price", features=FEATURES, errors="HC3")
