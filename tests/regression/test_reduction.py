import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from lsdr.regression.backward_elimination import backward_elimination
from lsdr.regression.choice import Chosen
from lsdr.regression.path_table import shown_steps
from lsdr.regression.step import Step

# Of every step, in JSON.
PROMISED = ("size", "removed", "t", "tvalues", "params", "rss", "aic", "bic", "mse_heldout", "mse_heldout_se")


@pytest.fixture(scope="module")
def houses():
    rng = np.random.default_rng(3)
    n = 300
    table = pd.DataFrame(
        {
            "area": rng.uniform(50, 200, n),
            "region": rng.choice(["north", "south", "west"], n),
            "noise": rng.normal(size=n),
            "age": rng.uniform(0, 80, n),
        }
    )
    table["price"] = 3 * table.area + 40 * (table.region == "south") - 0.2 * table.age + rng.normal(0, 20, n)
    return table


@pytest.fixture(scope="module")
def reduced(houses):
    return backward_elimination(houses, "price", resamples=10)


def refit(houses, features):
    return smf.ols("price ~ " + (" + ".join(features) or "1"), houses).fit()


def ours(name):
    """statsmodels' name of a column in ours."""
    return name.replace("[T.", "[")


def test_every_size_is_statsmodels_refit(houses, reduced):
    for step in reduced.steps:
        model, reference = reduced.model(step.size), refit(houses, step.terms)
        names = [ours(name) for name in reference.params.index]
        assert sorted(model.params.index) == sorted(names)
        assert model.params.index[0] == "Intercept"
        for mine, theirs in (
            (model.params, reference.params),
            (model.bse, reference.bse),
            (model.tvalues, reference.tvalues),
        ):
            np.testing.assert_allclose(mine[names], theirs, rtol=1e-9)
        np.testing.assert_allclose(model.pvalues[names], reference.pvalues, rtol=1e-7)
        np.testing.assert_allclose(model.conf_int(0.1).loc[names], reference.conf_int(0.1), rtol=1e-9)
        assert model.nobs == reference.nobs
        assert model.df_resid == reference.df_resid
        assert model.mse_resid == pytest.approx(reference.mse_resid, rel=1e-12)
        assert model.rss == pytest.approx(reference.ssr, rel=1e-12)
        assert model.rsquared == pytest.approx(reference.rsquared, rel=1e-10, abs=1e-12)
        assert model.rsquared_adj == pytest.approx(reference.rsquared_adj, rel=1e-10, abs=1e-12)


def test_without_intercept_r_squared_is_about_zero(houses):
    found = backward_elimination(houses, "price", features=["area", "noise", "age"], intercept=False)
    reference = sm.OLS(houses.price, houses[["area", "noise", "age"]]).fit()
    model = found.model(3)
    np.testing.assert_allclose(model.params[["area", "noise", "age"]], reference.params, rtol=1e-10)
    assert model.rsquared == pytest.approx(reference.rsquared, rel=1e-12)
    assert model.rsquared_adj == pytest.approx(reference.rsquared_adj, rel=1e-12)
    np.testing.assert_allclose(model.predict(houses), reference.predict(houses[["area", "noise", "age"]]), rtol=1e-10)


def test_predictions_of_every_size_and_kind_of_table(houses, reduced):
    for step in reduced.steps:
        expected = refit(houses, step.terms).predict(houses)
        model = reduced.model(step.size)
        for table in (houses, pl.DataFrame(houses), houses.drop(columns="price").to_numpy(dtype=object)):
            np.testing.assert_allclose(model.predict(table), expected, rtol=1e-9)
    gone = houses.assign(region=[None, *houses.region[1:]])
    predicted = reduced.model(reduced.steps[0].size).predict(gone)
    assert np.isnan(predicted[0])
    assert np.isfinite(predicted[1:]).all()


def test_model_without_size_is_the_chosen_one(reduced):
    assert reduced.model().size == reduced.chosen.size
    assert reduced.model().features == reduced.chosen.features
    with pytest.raises(ValueError, match="models of 0 to 4 terms, got size=7"):
        reduced.model(7)


def test_tables_of_the_path(reduced):
    frame = reduced.frame()
    assert frame["size"].tolist() == [4, 3, 2, 1, 0]
    assert frame["removed"].tolist()[:4] == [step.removed for step in reduced.steps[:4]]
    assert frame["chosen"].sum() == 1
    assert (frame["rss"].diff().dropna() >= 0).all()
    for wide, attribute in ((reduced.coefficients(), "params"), (reduced.tvalues(), "tvalues")):
        assert wide.index.tolist() == [4, 3, 2, 1, 0]
        for step in reduced.steps:
            expected = getattr(step, attribute)
            pd.testing.assert_series_equal(
                wide.loc[step.size].dropna().sort_index(), expected.sort_index(), check_names=False
            )


def test_json_is_strict_and_complete(reduced):
    made = json.loads(json.dumps(reduced.to_json(), allow_nan=False))
    assert made["n"] == 300
    assert made["method"] in ("gram", "qr")
    assert [step["size"] for step in made["steps"]] == [4, 3, 2, 1, 0]
    for step, ours_ in zip(made["steps"], reduced.steps, strict=True):
        assert set(PROMISED) <= set(step)
        assert set(step["params"]) == set(step["tvalues"]) == set(ours_.estimates.names)
        if step["removed"] == "region":
            assert step["t"] is None
            assert step["df"] == 2
        elif step["removed"] is not None:
            assert step["t"] == step["tvalues"][step["removed"]]
            assert step["F"] == pytest.approx(step["t"] ** 2, rel=1e-12)
            assert step["df"] == 1
        if step["removed"] is not None:
            assert 0 <= step["p_value"] <= 1
    assert made["steps"][-1]["removed"] is made["steps"][-1]["t"] is made["steps"][-1]["df"] is None
    assert made["chosen"]["features"] == list(reduced.chosen.features)
    assert made["chosen"]["rule"] == "one_se"
    assert made["terms"] == {
        "area": ["area"],
        "region": ["region[south]", "region[west]"],
        "noise": ["noise"],
        "age": ["age"],
    }
    assert np.shape(made["frequencies"]["values"]) == (len(made["frequencies"]["sizes"]), 4)
    assert set(made["split"]["tvalues"]) == set(reduced.split.tvalues.index)
    assert made["model"]["params"] == made["steps"][4 - reduced.chosen.size]["params"]


def test_printed_path_says_what_t_is_worth(reduced):
    text = str(reduced)
    assert "t after selection is descriptive" in text
    assert f"* chosen: {reduced.chosen.size} terms" in text
    assert "t values that hold" in text
    region = next(line for line in text.splitlines() if " region " in line)
    assert "F " in region
    marked = [line for line in text.splitlines() if line.startswith("* ") and "chosen" not in line]
    assert [line.split()[1] for line in marked] == [str(reduced.chosen.size)]


def test_a_long_path_is_shortened_around_the_choice(reduced):
    assert shown_steps(list(range(20, -1, -1)), 4) == list(range(21))
    shown = shown_steps(list(range(100, -1, -1)), 40)
    assert shown[:4] == [0, 1, 2, 52]
    assert shown[-4:] == [68, 98, 99, 100]
    first = reduced.steps[0]
    steps = tuple(
        dataclasses.replace(first, size=size, removed=f"x{size}" if size else None) for size in range(60, -1, -1)
    )
    long = dataclasses.replace(reduced, steps=steps, chosen=Chosen(30, first.terms, "size", "asked for."), split=None)
    lines = str(long).splitlines()
    assert sum("..." in line for line in lines) == 2
    assert len(lines) < 35


def test_summary_names_errors_and_says_descriptive(houses, reduced):
    text = str(reduced.model(2).summary())
    assert "Descriptive: t values after selection" in text
    assert "classical; exact" in text
    assert "300" in text
    row = next(line for line in text.splitlines() if line.startswith("area"))
    model = reduced.model(2)
    assert float(row.split()[1]) == pytest.approx(model.params["area"], rel=1e-5)
    assert float(row.split()[3]) == pytest.approx(model.tvalues["area"], abs=1e-3)
    assert float(row.split()[5]) == pytest.approx(model.conf_int().loc["area", 0], rel=1e-5)
    page = reduced.model(2).summary()._repr_html_()
    assert "Descriptive" in page
    assert page.count("<tr>") > 3
    kept = backward_elimination(houses, "price", keep=4)
    assert "Descriptive" not in str(kept.model().summary())


def test_summary_escapes_names():
    table = pd.DataFrame({"<b>": np.arange(9.0), "y": np.arange(9.0) ** 2})
    page = backward_elimination(table, "y", keep=1).model().summary()._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_groups_predict_from_arrays(houses):
    numbers = houses[["area", "noise", "age", "price"]]
    found = backward_elimination(numbers, "price", groups={"both": ("area", "age")}, keep=1)
    assert found.chosen.features == ("both",)
    expected = refit(houses, ["area", "age"]).predict(houses)
    found = dataclasses.replace(found, inputs=("area", "noise", "age"))
    for table in (numbers, numbers[["area", "noise", "age"]].to_numpy(), numbers[["area", "age"]].to_numpy()):
        np.testing.assert_allclose(found.model().predict(table), expected, rtol=1e-10)


def test_survives_pickle(houses, reduced):
    again = pickle.loads(pickle.dumps(reduced))
    assert again.to_json() == reduced.to_json()
    np.testing.assert_array_equal(again.model().predict(houses), reduced.model().predict(houses))


def test_step_of_an_exact_fit_is_strict_json():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    found = backward_elimination((x, x @ [1.0, 2.0]), "y")
    assert isinstance(found.steps[0], Step)
    made = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert made["steps"][0]["rss"] == 0.0
    assert made["steps"][0]["tvalues"]["x0"] is None
    assert np.isinf(found.steps[0].tvalues["x0"])
    assert found.notes
