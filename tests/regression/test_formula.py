import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from formulaic import model_matrix

from lsdr.regression.formula import learn_design, parse_formula, to_frame, variables_of
from lsdr.regression.reduce_formula import reduce_formula

FORMULA = "y ~ a*g + C(k) + noise"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = 400
    table = pd.DataFrame(
        {
            "a": rng.normal(size=n),
            "g": rng.choice(list("abc"), n),
            "k": rng.integers(1, 5, n),
            "noise": rng.normal(size=n),
            "w": rng.uniform(0.5, 2, n),
            "school": rng.integers(0, 20, n),
            "fold": rng.integers(0, 4, n),
        }
    )
    table["y"] = np.exp((2 * table.a + 1.5 * (table.g == "b") + 0.3 * table.k + rng.normal(size=n)) / 5)
    return table


def batches(table, rows=64):
    frame = pl.DataFrame(table)
    return lambda: (frame[low : low + rows] for low in range(0, len(frame), rows))


def same_as_statsmodels(found, reference, rtol=1e-9):
    names = list(reference.params.index)
    assert sorted(found.params.index) == sorted(names)
    np.testing.assert_allclose(found.params[names], reference.params, rtol=rtol)
    np.testing.assert_allclose(found.bse[names], reference.bse, rtol=rtol)


@pytest.mark.parametrize(
    "formula",
    [
        FORMULA,
        "np.log(y) ~ g:a + C(k, contr.sum)",
        "y ~ 0 + g + a",
        "y ~ -1 + a + noise",
        "y ~ scale(a) + poly(noise, 3) + bs(w, df=4)",
        "I(y * 2) ~ C(k) * C(g) + I(a ** 2)",
    ],
)
def test_columns_are_those_of_formulaic_fitted_by_statsmodels(data, formula):
    found = reduce_formula(formula, data)
    if "poly" in formula or "contr" in formula:
        # patsy has neither: the columns of formulaic by another way in.
        made = model_matrix(formula, data)
        reference = sm.OLS(made.lhs.astype(float), made.rhs.astype(float)).fit()
    else:
        reference = smf.ols(formula, data).fit()
    same_as_statsmodels(found.steps[0], reference, rtol=1e-7)
    np.testing.assert_allclose(found.model(found.steps[0].size).predict(data), reference.fittedvalues, rtol=1e-7)


def test_terms_are_dropped_whole_by_their_f(data):
    found = reduce_formula(FORMULA, data)
    left = ["a", "g", "C(k)", "noise", "a:g"]
    assert sorted(found.features) == sorted(left)
    for step in found.steps[:-1]:
        full = smf.ols("y ~ " + " + ".join(["1", *left]), data).fit()
        if step.removed != "g" and step.removed != "a":  # patsy recodes a:g without them
            rest = smf.ols("y ~ " + " + ".join(["1", *(name for name in left if name != step.removed)]), data).fit()
            F, p, df = full.compare_f_test(rest)
            assert pytest.approx(F, rel=1e-7) == step.F
            assert step.p_value == pytest.approx(p, rel=1e-6)
            assert step.df == df
        left.remove(step.removed)
    assert any("interaction" in note for note in found.notes)


def test_in_memory_and_streamed_are_the_same(data, tmp_path):
    expected = reduce_formula(FORMULA, data, weights="w")
    pl.DataFrame(data).write_parquet(tmp_path / "t.parquet")
    data.to_csv(tmp_path / "t.csv", index=False)
    for source in (
        pl.DataFrame(data),
        pl.DataFrame(data).to_arrow(),
        {name: data[name].to_numpy() for name in data},
        pl.DataFrame(data).lazy(),
        batches(data),
        tmp_path / "t.parquet",
        str(tmp_path / "t.csv"),
    ):
        found = reduce_formula(FORMULA, source, weights="w")
        assert [step.removed for step in found.steps] == [step.removed for step in expected.steps]
        for mine, theirs in zip(found.steps, expected.steps, strict=True):
            assert mine.estimates.names == theirs.estimates.names
            np.testing.assert_allclose(mine.estimates.values, theirs.estimates.values, rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(mine.estimates.errors, theirs.estimates.errors, rtol=1e-10)
        np.testing.assert_allclose(found.model().predict(data), expected.model().predict(data), rtol=1e-10)


def test_a_pair_of_arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    found = reduce_formula("y ~ x0 * x1", (x, x[:, 0] + rng.normal(size=60)))
    assert found.features == ("x0", "x1", "x0:x1")


def test_processes_give_the_same(data, tmp_path):
    pl.DataFrame(data).write_parquet(tmp_path / "t.parquet", row_group_size=100)
    first = reduce_formula(FORMULA, tmp_path / "t.parquet")
    second = reduce_formula(FORMULA, tmp_path / "t.parquet", engine="processes", workers=2)
    assert first.to_json() == second.to_json()


def test_roles_keep_their_columns_out_of_the_dot(data):
    table = data.drop(columns=["g"])
    for source in (table, batches(table)):
        found = reduce_formula("y ~ .", source, weights="w", clusters="school", keep=2)
        assert found.features == ("a", "k", "noise", "fold")
        model = smf.wls("y ~ " + " + ".join(found.chosen.features), table, weights=table.w)
        reference = model.fit(cov_type="cluster", cov_kwds={"groups": table.school})
        same_as_statsmodels(found.model(), reference, rtol=1e-7)
    folded = reduce_formula("y ~ a + noise", table, fold_column="fold")
    assert folded.folds == 4


def test_forced_terms_stay(data):
    found = reduce_formula(FORMULA, data, forced=["noise", "a:g"])
    assert {"noise", "a:g"} == set(found.steps[-1].terms)
    for name, hint in (("k", "did you mean|C\\(k\\)"), ("noize", "did you mean 'noise'")):
        with pytest.raises(ValueError, match=hint):
            reduce_formula(FORMULA, data, forced=[name])


def test_missing_values_are_left_out_and_counted(data):
    gaps = data.copy()
    gaps.loc[3, "g"] = None
    gaps.loc[[5, 6], "a"] = np.nan
    gaps.loc[8, "y"] = np.nan
    gaps["k"] = gaps["k"].astype(object)
    gaps.loc[9, "k"] = None
    whole = gaps.drop(index=[3, 5, 6, 8, 9]).astype({"k": int})
    expected = smf.ols("y ~ a + g + C(k)", whole).fit()
    for source in (gaps, batches(gaps.astype({"k": "Int64"}))):
        found = reduce_formula("y ~ a + g + C(k)", source)
        assert found.missing == 5
        assert found.n == 395
        same_as_statsmodels(found.steps[0], expected)
        predicted = found.model(3).predict(gaps)
        assert np.flatnonzero(np.isnan(predicted)).tolist() == [3, 5, 6, 9]
    with pytest.raises(ValueError, match="missing"):
        reduce_formula("y ~ a + g", gaps, missing="raise")
    # The logarithm of a negative number is no number: missing as well.
    assert reduce_formula("y ~ np.log(a) + noise", data).missing == (data.a < 0).sum()
    with pytest.raises(ValueError, match=r"np.log\(zero\)"):
        reduce_formula("y ~ np.log(zero) + noise", data.assign(zero=[0.0] + [1.0] * 399))


def test_levels_seen_late_are_known(data):
    late = data.copy()
    late.loc[late.index[-1], "g"] = "z"
    found = reduce_formula("y ~ g + a", batches(late, 50))
    assert "g[T.z]" in found.steps[0].params
    same_as_statsmodels(found.steps[0], smf.ols("y ~ g + a", late).fit())


def test_a_source_read_once_needs_no_levels_or_is_refused(data):
    once = batches(data)()
    found = reduce_formula("np.log(y) ~ a + I(noise ** 2)", once)
    same_as_statsmodels(found.steps[0], smf.ols("np.log(y) ~ a + I(noise ** 2)", data).fit())
    with pytest.raises(ValueError, match=r"levels of g must be known.*function"):
        reduce_formula("y ~ g", batches(data)())


@pytest.mark.parametrize("term", ["scale(a)", "center(a)", "poly(a, 2)", "bs(a, df=4)", "I(a - a.mean())", "lag(a)"])
def test_what_needs_all_rows_is_refused_for_streams_alone(data, term):
    with pytest.raises(ValueError, match="needs all rows at once"):
        reduce_formula(f"y ~ {term} + noise", batches(data))
    if term != "lag(a)":
        assert reduce_formula(f"y ~ {term} + noise", data).features == (
            term[2:-1] if term[0] == "I" else term,
            "noise",
        ) or (term[0] == "I")


def test_identifiers_are_refused(data):
    wide = pd.concat([data] * 3, ignore_index=True)
    wide["id"] = [f"row {row}" for row in range(len(wide))]
    for source in (wide, batches(wide)):
        with pytest.raises(ValueError, match="identifier"):
            reduce_formula("y ~ a + id", source)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y", "one target before the tilde"),
        ("~ a", "one target before the tilde"),
        ("y + a ~ g", "one target before the tilde"),
        ("y ~ a +", "cannot be read"),
        ("y ~ a | g", "several parts"),
        ("y ~ nois", "did you mean 'noise'"),
        ("y ~ scale(nois)", "nois"),
        ("g ~ a", "is it text"),
        ("y ~ 1", "nothing to reduce"),
        ("y ~ foo(a)", "foo"),
    ],
)
def test_formulas_that_mean_nothing(data, formula, message):
    with pytest.raises(ValueError, match=message):
        reduce_formula(formula, data)


def test_refusals_of_options_and_columns(data):
    with pytest.raises(ValueError, match="said by the formula"):
        reduce_formula("y ~ a", data, features=["a"])
    dates = data.assign(day=pd.date_range("2020-01-01", periods=len(data)))
    with pytest.raises(ValueError, match=r"'day'.*date"):
        reduce_formula("y ~ a + day", batches(dates))
    with pytest.raises(ValueError, match=r"levels that the fit had not seen: \{'z'\}"):
        reduce_formula("y ~ g + a", data).model(2).predict(data.assign(g="z"))
    with pytest.raises(ValueError, match="'a' is needed"):
        reduce_formula("y ~ a", data).model(1).predict(data[["g"]])


def test_variables_are_found_within_transforms():
    columns = ["y", "a", "my b", "c", "d", "np"]
    parsed = parse_formula("np.log(y) ~ scale(a) + poly(`my b`, 2) + C(d, levels=['c'])", columns[:-1])
    assert variables_of(parsed.rhs, columns[:-1]) == ("a", "d", "my b")
    assert variables_of(parsed.lhs, columns[:-1]) == ("y",)


def test_whole_numbers_beside_nulls_and_decimals_stay_numbers():
    table = pa.table({"k": pa.array([1, None, 2]), "price": pa.array([Decimal("1.5"), Decimal("2.5"), None])})
    frame = to_frame(table, ["k", "price"])
    assert frame["k"].tolist()[::2] == [1, 2]
    assert frame["price"].dtype == np.float64


def test_a_design_survives_pickle(data):
    design = learn_design(FORMULA, parse_formula(FORMULA, list(data)), data[["a", "g", "k", "noise", "y"]])
    again = pickle.loads(pickle.dumps(design))
    for name, values in design(data).items():
        np.testing.assert_array_equal(again(data)[name], values)
