import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lsdr.regression.estimator import BackwardElimination

CHECKED = [
    BackwardElimination(),
    BackwardElimination(rule="aic", missing="drop", weight_kind="frequency", fit_intercept=False),
]


@pytest.mark.filterwarnings("ignore:No features were selected:UserWarning")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def houses():
    rng = np.random.default_rng(1)
    n = 240
    X = pd.DataFrame(
        {
            "area": rng.uniform(50, 200, n),
            "region": rng.choice(["north", "south", "west"], n),
            "noise": rng.normal(size=n),
            "rooms": rng.integers(1, 5, n),
        }
    )
    y = 3 * X.area + 60 * (X.region == "south") + 30 * (X.rooms == 2) + rng.normal(0, 20, n)
    return X, y.rename("price")


def test_every_removal_is_the_weakest_of_a_statsmodels_fit(diabetes):
    X, y = diabetes
    found = BackwardElimination(n_features=1).fit(X, y)
    left = list(X.columns)
    for removed, t in zip(found.path_["removed"][:-2], found.path_["t"][:-2], strict=True):
        tvalues = sm.OLS(y, sm.add_constant(X[left])).fit().tvalues.drop("const")
        assert removed == tvalues.abs().idxmin()
        assert t == pytest.approx(tvalues[removed], rel=1e-9)
        left.remove(removed)
    assert found.get_feature_names_out().tolist() == left


def test_coefficients_and_predictions_are_those_of_the_selected_columns(diabetes):
    X, y = diabetes
    found = BackwardElimination(n_features=4).fit(X, y)
    kept = X.columns[found.get_support()]
    reference = LinearRegression(tol=1e-12).fit(X[kept], y)
    assert found.n_features_ == len(kept) == 4
    np.testing.assert_allclose(found.coef_[found.support_], reference.coef_, rtol=1e-10)
    assert (found.coef_[~found.support_] == 0).all()
    assert found.intercept_ == pytest.approx(reference.intercept_, rel=1e-12)
    np.testing.assert_allclose(found.predict(X), reference.predict(X[kept]), rtol=1e-10)
    np.testing.assert_array_equal(found.transform(X), X[kept])
    assert found.score(X, y) == pytest.approx(reference.score(X[kept], y), rel=1e-12)
    statsmodels = sm.OLS(y, sm.add_constant(X[kept])).fit()
    for mine, theirs in (
        (found.params_, statsmodels.params),
        (found.bse_, statsmodels.bse),
        (found.tvalues_, statsmodels.tvalues),
        (found.pvalues_, statsmodels.pvalues),
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8)
    assert "Descriptive" in str(found.summary())


def test_ranking_counts_back_from_the_kept(diabetes):
    X, y = diabetes
    found = BackwardElimination(n_features=4).fit(X, y)
    order = found.path_["removed"].tolist()
    assert [found.ranking_[X.columns.get_loc(name)] for name in order[:6]] == [7, 6, 5, 4, 3, 2]
    assert (found.ranking_[found.support_] == 1).all()
    constant = BackwardElimination(n_features=4).fit(X.assign(flat=1.0), y)
    assert constant.ranking_[-1] == 8
    assert constant.result_.aliased[0].column == "flat"
    np.testing.assert_allclose(constant.predict(X.assign(flat=5.0)), found.predict(X), rtol=1e-10)


def test_units_and_kind_of_table_do_not_matter(diabetes):
    X, y = diabetes
    first = BackwardElimination().fit(X, y)
    order = first.path_["removed"].tolist()[:-1]
    other = BackwardElimination().fit(X * np.logspace(-6, 6, 10) + 3, 1e4 * y)
    assert other.path_["removed"].tolist()[:-1] == order
    array = BackwardElimination().fit(X.to_numpy(), y.to_numpy())
    assert not hasattr(array, "feature_names_in_")
    assert array.path_["removed"].tolist()[:-1] == [f"x{X.columns.get_loc(name)}" for name in order]
    frame = BackwardElimination().fit(pl.DataFrame(X), pl.Series("target", y.to_numpy()))
    assert frame.feature_names_in_.tolist() == X.columns.tolist()
    np.testing.assert_array_equal(frame.predict(pl.DataFrame(X)), first.predict(X))
    assert first.result_.target == frame.result_.target == "target"


def test_set_output(diabetes):
    X, y = diabetes
    found = BackwardElimination(n_features=3).fit(X, y)
    names = found.get_feature_names_out().tolist()
    assert found.set_output(transform="pandas").transform(X).columns.tolist() == names
    assert found.set_output(transform="polars").transform(X).columns == names


def test_pipeline_grid_search_and_cross_validation(diabetes):
    X, y = diabetes
    pipe = make_pipeline(StandardScaler(), BackwardElimination(n_features=3), LinearRegression())
    plain = make_pipeline(BackwardElimination(n_features=3))
    np.testing.assert_allclose(pipe.fit(X, y).predict(X), plain.fit(X, y).predict(X), rtol=1e-9)
    search = GridSearchCV(BackwardElimination(), {"n_features": [0, 2, 6]}, cv=3).fit(X, y)
    assert search.best_params_["n_features"] in (2, 6)
    assert search.best_estimator_.n_features_ == search.best_params_["n_features"]
    scores = cross_val_score(BackwardElimination(), X, y, cv=KFold(4))
    assert (scores > 0.3).all()


def test_metadata_routing_hands_on_weights_and_clusters(diabetes):
    X, y = diabetes
    weights, labels = np.linspace(1, 2, len(y)), np.arange(len(y)) // 10
    with config_context(enable_metadata_routing=True):
        model = BackwardElimination(n_features=3, errors="cluster").set_fit_request(sample_weight=True, clusters=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, model).fit(X, y, sample_weight=weights, clusters=labels)
    direct = BackwardElimination(n_features=3, errors="cluster").fit(
        StandardScaler().fit_transform(X), y, sample_weight=weights, clusters=labels
    )
    np.testing.assert_allclose(pipe[-1].bse_, direct.bse_, rtol=1e-12)


def test_clone_and_pickle(diabetes):
    X, y = diabetes
    model = BackwardElimination(n_features=2, forced=["age"], cv=[0, 1] * 221)
    assert clone(model).get_params() == model.get_params()
    model.fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    with pytest.raises(NotFittedError):
        clone(model).predict(X)


def test_weights_of_both_kinds(diabetes):
    X, y = diabetes
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, len(y))
    chosen = BackwardElimination(n_features=5).fit(X, y, sample_weight=weights)
    kept = X.columns[chosen.support_]
    used = weights > 0
    analytic = sm.WLS(y[used], sm.add_constant(X[kept])[used], weights=weights[used]).fit()
    np.testing.assert_allclose(chosen.params_, analytic.params, rtol=1e-9)
    np.testing.assert_allclose(chosen.bse_, analytic.bse, rtol=1e-9)
    frequency = BackwardElimination(n_features=5, weight_kind="frequency").fit(X, y, sample_weight=weights)
    repeated = sm.OLS(np.repeat(y, weights), sm.add_constant(X[kept]).loc[np.repeat(X.index, weights)]).fit()
    np.testing.assert_allclose(frequency.params_, repeated.params, rtol=1e-9)
    np.testing.assert_allclose(frequency.bse_, repeated.bse, rtol=1e-9)
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        BackwardElimination().fit(X, y, sample_weight=-np.ones(len(y)))


@pytest.mark.parametrize("errors", ["HC0", "HC1", "HC2", "HC3", "cluster"])
def test_robust_errors_are_statsmodels(diabetes, errors):
    X, y = diabetes
    labels = np.arange(len(y)) % 30
    found = BackwardElimination(n_features=4, errors=errors).fit(X, y, clusters=labels if errors == "cluster" else None)
    kept = X.columns[found.support_]
    options = {"groups": labels} if errors == "cluster" else {}
    reference = sm.OLS(y, sm.add_constant(X[kept])).fit(cov_type=errors, cov_kwds=options)
    np.testing.assert_allclose(found.bse_, reference.bse, rtol=1e-8)
    assert errors in found.result_.errors or "cluster" in found.result_.errors


def test_clusters_need_not_be_numbers(diabetes):
    X, y = diabetes
    numbers = np.arange(len(y)) % 30
    names = np.array([f"school {number}" for number in numbers])
    for labels in (names, pd.Series(names), names.astype(object)):
        found = BackwardElimination(n_features=4, errors="cluster").fit(X, y, clusters=labels)
        expected = BackwardElimination(n_features=4, errors="cluster").fit(X, y, clusters=numbers)
        np.testing.assert_allclose(found.bse_, expected.bse_, rtol=1e-12)
    with pytest.raises(ValueError, match="clusters"):
        BackwardElimination(errors="cluster").fit(X, y)


def test_ridge_is_scikit_learn(diabetes):
    X, y = diabetes
    found = BackwardElimination(n_features=10, ridge=0.7).fit(X, y)
    reference = Ridge(alpha=0.7, solver="cholesky").fit(X, y)
    np.testing.assert_allclose(found.coef_, reference.coef_, rtol=1e-9)
    np.testing.assert_allclose(found.predict(X), reference.predict(X), rtol=1e-10)
    plain = BackwardElimination(n_features=10, fit_intercept=False).fit(X, y)
    reference = LinearRegression(fit_intercept=False, tol=1e-12).fit(X, y)
    np.testing.assert_allclose(plain.coef_, reference.coef_, rtol=1e-8)
    assert plain.intercept_ == 0.0


def heldout(X, y, folds, size):
    """Held-out error of one size, the selection made anew without each fold, by refits."""
    errors = np.empty(len(y))
    for fold in np.unique(folds):
        train = folds != fold
        left = list(X.columns)
        while len(left) > size:
            left.remove(sm.OLS(y[train], sm.add_constant(X[left])[train]).fit().tvalues.drop("const").abs().idxmin())
        fit = LinearRegression(tol=1e-12).fit(X[left][train], y[train])
        errors[~train] = (y[~train] - fit.predict(X[left][~train])) ** 2
    return errors.mean()


def test_folds_of_every_kind_are_the_same_folds(diabetes):
    X, y = diabetes
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], len(y))
    expected = heldout(X, y, labels, 5)
    splits = list(GroupKFold(3).split(X, y, labels))
    for cv in (labels, labels.tolist(), splits):
        found = BackwardElimination(cv=cv).fit(X, y)
        path = found.path_.set_index("size")
        assert path.loc[5, "mse_heldout"] == pytest.approx(expected, rel=1e-9)
    kfold = KFold(3, shuffle=True, random_state=0)
    number = np.empty(len(y), dtype=int)
    for place, (_, test) in enumerate(kfold.split(X)):
        number[test] = place
    found = BackwardElimination(cv=kfold).fit(X, y).path_.set_index("size")
    assert found.loc[5, "mse_heldout"] == pytest.approx(heldout(X, y, number, 5), rel=1e-9)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (ShuffleSplit(3), "divide the rows into folds"),
        ([(np.arange(100), np.arange(100, 442))], "divide the rows into folds"),
        (np.zeros(5), "one label for each of the 442 rows"),
        ("five", "one label for each"),
        (1, "folds"),
    ],
)
def test_folds_that_are_none(diabetes, cv, message):
    with pytest.raises(ValueError, match=message):
        BackwardElimination(cv=cv).fit(*diabetes)


def test_few_rows():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4, 1)), rng.normal(size=4)
    with pytest.raises(ValueError, match="cv=5 folds need as many rows, got 4"):
        BackwardElimination().fit(X, y)
    assert BackwardElimination(n_features=1).fit(X, y).coef_.shape == (1,)


def test_rules_agree_with_the_path(diabetes):
    X, y = diabetes
    for rule, column in (("aic", "aic"), ("bic", "bic"), ("cp", "cp"), ("cv", "mse_heldout")):
        found = BackwardElimination(rule=rule).fit(X, y)
        path = found.path_.set_index("size")
        assert found.n_features_ == path[column].idxmin()
    found = BackwardElimination(rule="one_se").fit(X, y)
    path = found.path_.set_index("size")
    best = path["mse_heldout"].idxmin()
    limit = path.loc[best, "mse_heldout"] + path.loc[best, "mse_heldout_se"]
    assert found.n_features_ == path.index[path["mse_heldout"] <= limit].min()
    strict = BackwardElimination(rule="p_value", p_value=1e-6).fit(X, y)
    assert strict.pvalues_.drop("Intercept").max() <= 1e-6


def test_forced_and_groups_by_name_and_position(diabetes):
    X, y = diabetes
    for forced, table in ((["age", "s3"], X), ([0, 6], X.to_numpy()), ([0, -4], X)):
        found = BackwardElimination(n_features=3, forced=forced).fit(table, y)
        assert found.support_[[0, 6]].all()
        assert found.path_["size"].min() == 2
    for members in (["s1", "s2", "s3"], [4, 5, 6]):
        found = BackwardElimination(n_features=3, groups={"blood": members}).fit(X, y)
        assert found.support_[4:7].all() or not found.support_[4:7].any()
        assert "blood" in [*found.path_["removed"], *found.result_.chosen.features]
    kept = BackwardElimination(n_features=2, groups={"blood": [4, 5, 6]}, forced=["blood"]).fit(X, y)
    assert kept.support_[4:7].all()
    assert kept.support_.sum() == 4
    np.testing.assert_allclose(
        kept.predict(X),
        LinearRegression(tol=1e-12).fit(X[X.columns[kept.support_]], y).predict(X[X.columns[kept.support_]]),
    )
    for bad, message in (
        ({"forced": "age"}, "write \\['age'\\]"),
        ({"forced": [11]}, "11"),
        ({"forced": ["agee"]}, "agee"),
        ({"groups": {"blood": ["s1", "s9"]}}, "s9"),
        ({"n_features": 11}, "only 10"),
        ({"n_features": -1}, "0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            BackwardElimination(**bad).fit(X, y)


def test_text_columns_are_factors(houses):
    X, y = houses
    found = BackwardElimination(n_features=2).fit(X, y)
    assert found.get_feature_names_out().tolist() == ["area", "region"]
    reference = smf.ols("price ~ area + region", X.assign(price=y)).fit()
    np.testing.assert_allclose(found.predict(X), reference.predict(X), rtol=1e-10)
    assert found.columns_ == ("area", "region[south]", "region[west]", "noise", "rooms")
    assert found.coef_[1] == pytest.approx(reference.params["region[T.south]"], rel=1e-9)
    assert found.coef_[3] == 0
    other = pl.DataFrame(X)
    again = BackwardElimination(n_features=2).fit(other, y.to_numpy())
    np.testing.assert_allclose(again.predict(other), found.predict(X), rtol=1e-12)
    categories = X.assign(region=X.region.astype("category"))
    np.testing.assert_allclose(
        BackwardElimination(n_features=2).fit(categories, y).predict(categories), found.predict(X), rtol=1e-12
    )
    assert found.transform(X).tolist() == X[["area", "region"]].to_numpy().tolist()
    with pytest.raises(ValueError, match="east"):
        found.predict(X.assign(region="east"))
    with pytest.raises(ValueError, match="feature names"):
        found.predict(X[["region", "area", "noise", "rooms"]])


def test_numbers_as_labels(houses):
    X, y = houses
    reference = smf.ols("price ~ area + C(rooms)", X.assign(price=y)).fit()
    numeric = X[["area", "noise", "rooms"]]
    for table, categorical in ((numeric, ["rooms"]), (numeric.to_numpy(), [2]), (numeric, [-1])):
        found = BackwardElimination(n_features=2, categorical=categorical).fit(table, y)
        assert found.support_.tolist() == [True, False, True]
        np.testing.assert_allclose(found.predict(table), reference.predict(X), rtol=1e-10)


def test_missing_values(houses, diabetes):
    X, y = diabetes
    gaps = X.copy()
    gaps.iloc[::7, 3] = np.nan
    target = y.copy()
    target.iloc[5] = np.nan
    whole = gaps.notna().all(axis=1) & target.notna()
    with pytest.raises(ValueError, match="NaN"):
        BackwardElimination().fit(gaps, y)
    with pytest.raises(ValueError, match="NaN"):
        BackwardElimination().fit(X, target)
    found = BackwardElimination(n_features=4, missing="drop").fit(gaps, target)
    assert found.result_.missing == (~whole).sum()
    assert found.result_.n == whole.sum()
    expected = BackwardElimination(n_features=4).fit(X[whole], y[whole])
    np.testing.assert_allclose(found.params_, expected.params_, rtol=1e-10)
    assert np.isnan(found.predict(gaps)).any() == found.support_[3]
    X, y = houses
    gaps = X.assign(region=[None, *X.region[1:]])
    with pytest.raises(ValueError, match="missing"):
        BackwardElimination().fit(gaps, y)
    found = BackwardElimination(n_features=2, missing="drop").fit(gaps, y)
    assert found.result_.missing == 1
    assert np.isnan(found.predict(gaps)).tolist() == [True] + [False] * (len(y) - 1)
    with pytest.raises(ValueError, match="Row 0 of X contains NaN"):
        BackwardElimination(n_features=2).fit(X, y).predict(gaps)
    for bad in (np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"[Ii]nfin"):
            BackwardElimination(missing="drop").fit(X[["area"]].assign(area=[bad, *X.area[1:]]), y)


def test_sparse_is_refused_with_the_reason(diabetes):
    X, y = diabetes
    found = BackwardElimination().fit(X.to_numpy(), y)
    for call in (found.fit, found.predict, found.transform):
        with pytest.raises(TypeError, match=r"centring fills the zeros.*toarray"):
            call(sparse.csr_array(X.to_numpy()), *([y] if call == found.fit else []))


@pytest.mark.parametrize(
    "bad",
    [
        {"n_features": 2.0},
        {"n_features": True},
        {"groups": ["age"]},
        {"ridge": "small"},
        {"resamples": 1.5},
        {"fit_intercept": 1},
        {"errors": None},
    ],
    ids=str,
)
def test_parameters_of_the_wrong_kind(diabetes, bad):
    with pytest.raises(TypeError, match=next(iter(bad)) + " must be"):
        BackwardElimination(**bad).fit(*diabetes)


@pytest.mark.parametrize("name", ["rule", "errors", "method", "missing", "weight_kind"])
def test_words_that_mean_nothing(diabetes, name):
    with pytest.raises(ValueError, match=f"{name} must be one of .*'nonsense'"):
        BackwardElimination(**{name: "nonsense"}).fit(*diabetes, sample_weight=np.ones(442))


def test_names_that_are_taken(diabetes):
    X, y = diabetes
    table = X.rename(columns={"age": "y", "sex": "weights", "s6": "Intercept", "s5": "clusters"})
    labels = np.arange(len(y)) % 20
    found = BackwardElimination(n_features=10, cv=labels % 4).fit(
        table, y.to_numpy(), sample_weight=np.ones(len(y)), clusters=labels
    )
    plain = BackwardElimination(n_features=10).fit(X, y)
    np.testing.assert_allclose(found.coef_, plain.coef_, rtol=1e-9)
    assert found.intercept_ == pytest.approx(plain.intercept_)
    assert found.result_.target == "y_"


def test_random_state(diabetes):
    X, y = diabetes
    errors = {
        state: BackwardElimination(random_state=state).fit(X, y).path_["mse_heldout"].tolist() for state in (0, 1)
    }
    assert errors[0] != errors[1]
    assert BackwardElimination(random_state=0).fit(X, y).path_["mse_heldout"].tolist() == errors[0]
    first = BackwardElimination(random_state=np.random.RandomState(7)).fit(X, y)
    second = BackwardElimination(random_state=np.random.RandomState(7)).fit(X, y)
    assert first.path_.equals(second.path_)


def test_selection_frequencies(diabetes):
    X, y = diabetes
    found = BackwardElimination(resamples=20).fit(X, y)
    frequencies = found.result_.frequencies
    assert frequencies.columns.tolist() == X.columns.tolist()
    assert frequencies.loc[2, ["bmi", "s5"]].min() > 0.7


def test_from_formula(houses):
    X, y = houses
    data = X.assign(price=y)
    found = BackwardElimination.from_formula(
        "price ~ np.log(area) + area + region + C(rooms) + noise", data, n_features=3
    )
    assert found.result_.chosen.features == ("area", "region", "C(rooms)")
    reference = smf.ols("price ~ area + region + C(rooms)", data).fit()
    np.testing.assert_allclose(found.predict(X), reference.predict(X), rtol=1e-10)
    np.testing.assert_allclose(found.bse_[reference.bse.index], reference.bse, rtol=1e-9)
    assert found.feature_names_in_.tolist() == ["area", "noise", "region", "rooms"]
    assert found.get_feature_names_out().tolist() == ["area", "region", "rooms"]
    assert found.transform(data).shape == (len(y), 3)
    assert found.score(X, y) == pytest.approx(reference.rsquared, rel=1e-10)
    weighted = BackwardElimination.from_formula("price ~ . - noise", data.assign(w=X.rooms), weights="w", n_features=2)
    reference = smf.wls("price ~ area + region", data, weights=X.rooms).fit()
    np.testing.assert_allclose(weighted.params_[reference.params.index], reference.params, rtol=1e-9)
    for bad in ({"groups": {}}, {"categorical": []}, {"cv": [1, 2]}):
        with pytest.raises(ValueError, match="formula"):
            BackwardElimination.from_formula("price ~ area", data, **bad)
