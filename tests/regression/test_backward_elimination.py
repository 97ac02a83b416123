import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from threadpoolctl import threadpool_info, threadpool_limits

from lsdr.regression import backward_elimination as module
from lsdr.regression.backward_elimination import backward_elimination
from lsdr.regression.blocks import halves
from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source


def table(n=150, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 5)), columns=list("abcde"))
    frame["b"] += 0.8 * frame["a"]
    frame["target"] = frame["a"] - 0.5 * frame["c"] + 0.15 * frame["d"] + rng.normal(size=n) + 2
    frame["weight"] = rng.uniform(0.5, 3, n)
    frame["fold"] = rng.integers(0, 4, n)
    frame["village"] = rng.integers(0, 25, n)
    frame["region"] = rng.choice(["east", "north", "south"], n)
    return frame


FEATURES = list("abcde")


def loop(frame, features=FEATURES, *, weights=None, intercept=True, forced=(), **robust):
    """Fits of statsmodels from the full model on, and what goes next."""
    left, fits = list(features), []
    w = np.ones(len(frame)) if weights is None else frame[weights]
    while True:
        design = frame[left].assign(Intercept=1.0)[["Intercept", *left]] if intercept else frame[left]
        if design.shape[1] == 0:
            return fits
        fit = sm.WLS(frame["target"], design, w).fit(**robust)
        free = [name for name in left if name not in forced]
        goes = fit.tvalues[free].abs().idxmin() if free else None
        fits.append((fit, goes))
        if goes is None:
            return fits
        left.remove(goes)


def assert_same_path(result, fits, rtol=1e-9):
    for step, (fit, goes) in zip(result.steps, fits, strict=False):
        assert step.removed == goes
        assert list(step.params.index) == list(fit.params.index)
        np.testing.assert_allclose(step.params, fit.params, rtol=rtol, atol=1e-11)
        np.testing.assert_allclose(step.bse, fit.bse, rtol=rtol)
        np.testing.assert_allclose(step.tvalues, fit.tvalues, rtol=rtol, atol=1e-10)
        assert step.df_resid == fit.df_resid
        if goes is not None:
            assert step.t == pytest.approx(fit.tvalues[goes], rel=rtol)
            assert pytest.approx(fit.tvalues[goes] ** 2, rel=rtol) == step.F


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("weights", [None, "weight"])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_path_is_that_of_refitting(method, weights, intercept):
    frame = table()
    result = backward_elimination(
        frame, "target", features=FEATURES, weights=weights, intercept=intercept, method=method, split=False
    )
    fits = loop(frame, weights=weights, intercept=intercept)
    assert_same_path(result, fits)
    assert [step.size for step in result.steps] == [5, 4, 3, 2, 1, 0]
    assert result.method == method
    for step, (fit, goes) in zip(result.steps, fits, strict=False):
        w = np.ones(150) if weights is None else frame[weights]
        rss = float(w @ fit.resid**2)
        assert step.rss == pytest.approx(rss, rel=1e-10)
        assert step.mse == pytest.approx(rss / w.sum(), rel=1e-10)
        assert step.r_squared == pytest.approx(fit.rsquared, rel=1e-9, abs=1e-12)
        assert step.adjusted_r_squared == pytest.approx(fit.rsquared_adj, rel=1e-9, abs=1e-12)
        assert step.aic == pytest.approx(150 * np.log(rss / 150) + 2 * len(fit.params), rel=1e-10)
        assert step.bic == pytest.approx(150 * np.log(rss / 150) + np.log(150) * len(fit.params), rel=1e-10)
        full = fits[0][0]
        variance = full.scale
        assert step.cp == pytest.approx(rss / variance - 150 + 2 * len(fit.params), rel=1e-8, abs=1e-8)
        if goes is not None:
            assert step.p_value == pytest.approx(fit.pvalues[goes], rel=1e-7)


def brute_heldout(frame, features=FEATURES, weights=None):
    sse = np.zeros(len(features) + 1)
    w = pd.Series(1.0, frame.index) if weights is None else frame[weights]
    for fold in frame["fold"].unique():
        train, test = frame[frame["fold"] != fold], frame[frame["fold"] == fold]
        for step, (fit, _) in enumerate(loop(train, features, weights=weights)):
            design = test.assign(Intercept=1.0)[list(fit.params.index)]
            sse[step] += w[test.index] @ (test["target"] - design @ fit.params) ** 2
    return sse / w.sum()


@pytest.mark.parametrize("weights", [None, "weight"])
def test_held_out_errors_are_those_of_refitting_in_the_folds_given(weights):
    frame = table()
    result = backward_elimination(frame, "target", features=FEATURES, weights=weights, fold_column="fold", split=False)
    np.testing.assert_allclose(
        [step.mse_heldout for step in result.steps], brute_heldout(frame, weights=weights), rtol=1e-10
    )
    assert result.folds == 4
    assert (np.diff([step.rss for step in result.steps]) > 0).all()


def test_folds_of_its_own_are_nearly_even_and_reproducible():
    frame = table()
    one, two = (backward_elimination(frame, "target", features=FEATURES, seed=seed) for seed in (1, 2))
    again = backward_elimination(frame, "target", features=FEATURES, seed=1, workers=2)
    assert one.to_json() == again.to_json()
    np.testing.assert_allclose([step.rss for step in one.steps], [step.rss for step in two.steps], rtol=1e-13)
    assert one.steps[0].mse_heldout != two.steps[0].mse_heldout
    assert one.steps[0].mse_heldout == pytest.approx(two.steps[0].mse_heldout, rel=0.2)
    assert one.steps[0].mse_heldout > one.steps[0].mse


def test_no_folds():
    result = backward_elimination(table(), "target", features=FEATURES, folds=0)
    assert result.folds == 0
    assert np.isnan(result.steps[0].mse_heldout)
    assert "no held-out error" in result.chosen.why
    assert result.to_json()["steps"][0]["mse_heldout"] is None


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_heteroskedastic_errors_order_the_path(kind):
    frame = table(seed=3)
    frame["target"] += frame["b"].abs() * np.random.default_rng(1).normal(size=150)
    result = backward_elimination(frame, "target", features=FEATURES, errors=kind, seed=5)
    assert_same_path(result, loop(frame, cov_type=kind, use_t=True))
    assert result.errors == f"{kind} (exact)"
    assert all(step.exact for step in result.steps)


def test_clustered_errors_order_the_path():
    frame = table(seed=3)
    frame["target"] += np.random.default_rng(1).normal(size=25)[frame["village"]]
    result = backward_elimination(frame, "target", features=FEATURES, clusters="village")
    fits = loop(frame, cov_type="cluster", cov_kwds={"groups": frame["village"]}, use_t=True)
    assert result.errors == "cluster-robust (exact)"
    assert [step.removed for step in result.steps] == [goes for _, goes in fits]
    for step, (fit, _) in zip(result.steps, fits, strict=True):
        np.testing.assert_allclose(step.bse, fit.bse, rtol=1e-9)
        np.testing.assert_allclose(step.estimates.pvalues, fit.pvalues, rtol=1e-7)
        assert step.estimates.df == 24


def second_half(frame, folds=5, seed=0, **options):
    """Rows that judge what the others select."""
    source = open_source(frame)
    plan = make_plan(source, "target", features=FEATURES, seed=seed, folds=folds, **options)
    blocks = np.concatenate([batch.blocks for part in source.parts(plan) for batch in part.batches()])
    _, second = halves(plan.blocks, np.random.default_rng([seed, 2]), folds)
    return frame[np.isin(blocks, second)]


@pytest.mark.parametrize("errors", ["classical", "HC1", "HC3", "cluster"])
def test_split_inference_has_the_errors_asked_for(errors):
    frame = table(n=400, seed=4)
    frame["target"] += 2 * frame["a"].abs() * np.random.default_rng(1).normal(size=400)
    clusters = "village" if errors == "cluster" else None
    result = backward_elimination(frame, "target", features=FEATURES, keep=3, errors=errors, clusters=clusters)
    half = second_half(frame, clusters=clusters)
    robust = {
        "classical": {},
        "cluster": {"cov_type": "cluster", "cov_kwds": {"groups": half["village"]}, "use_t": True},
    }.get(errors, {"cov_type": errors, "use_t": True})
    fit = sm.OLS(half["target"], sm.add_constant(half[list(result.split.features)])).fit(**robust)
    np.testing.assert_allclose(result.split.params, fit.params, rtol=1e-9)
    np.testing.assert_allclose(result.split.bse, fit.bse, rtol=1e-8)
    np.testing.assert_allclose(result.split.pvalues, fit.pvalues, rtol=1e-6)
    np.testing.assert_allclose(result.split.conf_int(), fit.conf_int(), rtol=1e-7)
    assert result.split.rows == len(half)
    assert result.split.rows_selection == 400 - len(half)


def test_where_the_path_is_approximate_the_chosen_model_is_exact(monkeypatch):
    monkeypatch.setattr("lsdr.regression.robust_errors._WORK", 0)
    frame = table(n=400, seed=4)
    frame["target"] += 2 * frame["a"].abs() * np.random.default_rng(1).normal(size=400)
    result = backward_elimination(frame, "target", features=FEATURES, keep=3, errors="HC3")
    assert result.errors.startswith("HC3 (exact in the full and the chosen model, approximate")
    assert [step.exact for step in result.steps] == [True, False, True, False, False, False]
    for step in result.steps:
        fit = sm.OLS(frame["target"], sm.add_constant(frame[list(step.terms)].assign(const=1.0))).fit(cov_type="HC3")
        np.testing.assert_allclose(step.bse.iloc[1:], fit.bse[list(step.terms)], rtol=1e-9 if step.exact else 0.2)
    half = second_half(frame)
    fit = sm.OLS(half["target"], sm.add_constant(half[list(result.split.features)])).fit(cov_type="HC3")
    np.testing.assert_allclose(result.split.bse, fit.bse, rtol=1e-8)


def test_forced_terms_stay():
    frame = table()
    result = backward_elimination(frame, "target", features=FEATURES, forced=["e", "b"])
    assert_same_path(result, loop(frame, forced=("e", "b")))
    assert result.steps[-1].terms == ("b", "e")
    assert result.steps[-1].removed is None


def test_factors_go_whole_by_their_f_test():
    frame = table()
    result = backward_elimination(frame, "target", features=["a", "d", "region"], split=False)
    dummies = pd.get_dummies(frame["region"], prefix="region", dtype=float).iloc[:, 1:]
    full = frame[["a", "d"]].join(dummies)
    left = {"a": ["a"], "d": ["d"], "region": list(dummies)}
    for step in result.steps[:-1]:
        fit = sm.OLS(frame["target"], sm.add_constant(full[[c for names in left.values() for c in names]])).fit()
        tests = {
            name: fit.compare_f_test(
                sm.OLS(
                    frame["target"], full[[c for other in left if other != name for c in left[other]]].assign(one=1.0)
                ).fit()
            )
            for name in left
        }
        goes = max(tests, key=lambda name: tests[name][1])
        assert step.removed == goes
        F, p, df = tests[goes]
        assert pytest.approx(F, rel=1e-8) == step.F
        assert step.p_value == pytest.approx(p, rel=1e-8)
        assert step.df == df
        assert np.isnan(step.t) == (goes == "region")
        del left[goes]
    assert result.levels == {"region": ("east", "north", "south")}
    assert result.steps[0].params.index.tolist() == ["Intercept", "a", "d", "region[north]", "region[south]"]


def test_groups_go_together():
    frame = table()
    result = backward_elimination(frame, "target", features=FEATURES, groups={"ab": ["a", "b"]}, forced=["ab"])
    assert result.steps[0].terms == ("ab", "c", "d", "e")
    assert result.steps[-1].terms == ("ab",)
    np.testing.assert_allclose(
        result.steps[-1].params, sm.OLS(frame["target"], sm.add_constant(frame[["a", "b"]])).fit().params, rtol=1e-9
    )
    result = backward_elimination(frame, "target", features=FEATURES, groups={"de": ["d", "e"]})
    step = next(step for step in result.steps if step.removed == "de")
    fit = sm.OLS(
        frame["target"], sm.add_constant(frame[[name for name in step.params.index if name in FEATURES]])
    ).fit()
    assert pytest.approx(float(fit.f_test("d = 0, e = 0").fvalue), rel=1e-8) == step.F


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_categorical_numbers_and_frequencies(method):
    frame = table(n=80)
    frame["times"] = np.random.default_rng(2).integers(0, 4, 80)
    repeated = frame.loc[np.repeat(frame.index, frame["times"])].reset_index(drop=True)
    options = {"features": ["a", "c", "fold"], "categorical": ["fold"], "folds": 0, "method": method}
    weighted = backward_elimination(frame, "target", weights="times", weight_kind="frequency", **options)
    plain = backward_elimination(repeated, "target", **options)
    assert weighted.n == plain.n == len(repeated)
    assert weighted.frame()["removed"].tolist() == plain.frame()["removed"].tolist()
    np.testing.assert_allclose(weighted.tvalues(), plain.tvalues(), rtol=1e-9)
    np.testing.assert_allclose(weighted.frame()["aic"], plain.frame()["aic"], rtol=1e-10)


def test_missing_values_are_one_mask_for_all_models():
    frame = table()
    frame.loc[3, "a"] = frame.loc[7, "target"] = frame.loc[7, "b"] = np.nan
    result = backward_elimination(frame, "target", features=FEATURES, split=False)
    assert (result.n, result.missing) == (148, 2)
    assert_same_path(result, loop(frame.drop([3, 7])))
    with pytest.raises(ValueError, match="'a'"):
        backward_elimination(frame, "target", features=FEATURES, missing="raise")


@pytest.mark.parametrize("rule", ["aic", "bic", "cp", "cv", "one_se", "p_value"])
def test_rules_reach_the_choice(rule):
    result = backward_elimination(table(), "target", features=FEATURES, rule=rule, p_value=0.1, split=False)
    steps = result.steps
    size = {
        "aic": min(steps, key=lambda step: step.aic).size,
        "bic": min(steps, key=lambda step: step.bic).size,
        "cp": min(steps, key=lambda step: step.cp).size,
        "cv": min(steps, key=lambda step: step.mse_heldout).size,
        "p_value": next(step.size for step in steps if not step.p_value > 0.1),
    }
    best = min(steps, key=lambda step: step.mse_heldout)
    size["one_se"] = min(step.size for step in steps if step.mse_heldout <= best.mse_heldout + best.mse_heldout_se)
    assert result.chosen.size == size[rule]
    assert result.chosen.rule == rule
    assert result.chosen.features == result.step(size[rule]).terms


def test_keep():
    result = backward_elimination(table(), "target", features=FEATURES, keep=2)
    assert (result.chosen.size, result.chosen.rule, len(result.chosen.features)) == (2, "size", 2)
    assert len(result.split.features) == 2


def test_collinear_columns_change_the_route_by_themselves():
    frame = table()
    frame["f"] = frame["a"] + 1e-5 * frame["e"] + 1e-6 * np.random.default_rng(0).normal(size=150)
    result = backward_elimination(frame, "target", features=[*FEATURES, "f"], split=False)
    assert result.method == "qr"
    assert result.reason.startswith("QR: ")
    assert_same_path(result, loop(frame, [*FEATURES, "f"])[:2], rtol=1e-5)
    assert backward_elimination(frame, "target", features=FEATURES).method == "gram"


def test_aliased_constant_and_duplicated_columns_never_enter():
    frame = table()
    frame["twin"], frame["one"], frame["sum"] = frame["b"], 4.0, frame["a"] - 2 * frame["c"]
    result = backward_elimination(frame, "target", features=[*FEATURES, "twin", "one", "sum"], forced=["sum"])
    assert {gone.column: gone.reason for gone in result.aliased} == {
        "twin": "duplicate of b",
        "one": "constant",
        "c": "aliased",
    }
    assert result.steps[0].terms == ("a", "b", "d", "e", "sum")
    assert result.method == "qr"
    assert any("twin (duplicate of b)" in note for note in result.notes)
    assert result.features == (*FEATURES, "twin", "one", "sum")


def test_exact_fits_are_said():
    frame = table()
    frame["target"] = 3 * frame["a"] - frame["c"] + 1
    result = backward_elimination(frame, "target", features=FEATURES)
    assert result.chosen.features == ("a", "c")
    assert result.steps[-3].rss == 0
    assert np.isinf(result.steps[-3].tvalues[["a", "c"]]).all()
    # Coefficients that are 0 but for rounding have no t.
    assert (result.steps[0].params[["b", "d", "e"]] == 0).all()
    assert result.steps[0].tvalues[["b", "d", "e"]].isna().all()
    assert np.isinf(result.steps[0].tvalues[["a", "c"]]).all()
    assert any("exactly" in note for note in result.notes)
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("rows", [1, 2, 4, 6])
def test_fewer_rows_than_terms(rows):
    result = backward_elimination(table(n=rows), "target", features=FEATURES)
    assert result.n == rows
    assert result.steps[0].size == min(5, rows - 1)
    assert any("degrees of freedom" in note for note in result.notes)
    assert not any("exactly" in note for note in result.notes)
    assert result.chosen.size < max(result.steps[0].size, 1)
    json.dumps(result.to_json(), allow_nan=False)
    assert "t values" in str(result)


def test_a_constant_target_is_nothing_to_explain():
    frame = table().assign(target=2.5)
    result = backward_elimination(frame, "target", features=FEATURES)
    assert any("constant" in note for note in result.notes)
    assert result.chosen.size == 0
    assert result.model().params["Intercept"] == 2.5


def batches(frame, size=20):
    return (frame.iloc[start : start + size] for start in range(0, len(frame), size))


def test_iterators_are_read_once_and_functions_again():
    frame = table()
    columns = [*FEATURES, "target"]
    once = backward_elimination(batches(frame[columns], 50), "target", features=FEATURES, split=False)
    assert_same_path(once, loop(frame))
    again = backward_elimination(lambda: batches(frame[columns], 50), "target", errors="HC3", split=False)
    assert_same_path(again, loop(frame, cov_type="HC3", use_t=True))
    with pytest.raises(ValueError, match="read only once"):
        backward_elimination(batches(frame[columns]), "target", errors="HC3")


def test_what_cannot_be_read_again_keeps_cross_products_with_a_warning():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(2100, 3))
    # Rows of a later batch, so large that they make the columns of all rows nearly equal.
    later = 3e5 * rng.normal(size=(400, 1)) + rng.normal(size=(400, 3))
    x = np.vstack([first, later])
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=2500)

    def parts():
        return iter([(x[:2100], y[:2100]), (x[2100:], y[2100:])])

    once = backward_elimination(parts(), "y", split=False)
    assert once.method == "gram"
    assert any("read only once" in note and "method=" in note for note in once.notes)
    twice = backward_elimination(parts, "y", split=False)
    assert twice.method == "qr"
    assert "read a second time" in twice.reason
    assert not twice.notes
    asked = backward_elimination(parts(), "y", split=False, method="qr")
    assert asked.reason.startswith("QR: asked for")
    np.testing.assert_allclose(twice.steps[0].tvalues, asked.steps[0].tvalues, rtol=1e-6)
    gram = backward_elimination(parts, "y", split=False, method="gram")
    assert any("asked for" in note for note in gram.notes)


def test_clusters_of_an_iterator_come_from_its_one_pass():
    frame = table()
    columns = [*FEATURES, "target", "village"]
    once = backward_elimination(batches(frame[columns], 75), "target", clusters="village", method="gram")
    whole = backward_elimination(frame, "target", features=FEATURES, clusters="village", method="gram")
    np.testing.assert_allclose(once.tvalues(), whole.tvalues(), rtol=1e-9)


def test_frequencies_and_scales():
    frame = table()
    result = backward_elimination(frame, "target", features=FEATURES, resamples=20)
    assert result.frequencies.loc[5].tolist() == [1] * 5
    assert result.frequencies.loc[1, "a"] > 0.8
    np.testing.assert_allclose(
        [result.scales[name] for name in [*FEATURES, "target"]], frame[[*FEATURES, "target"]].std(ddof=0), rtol=1e-10
    )


def test_ridge_is_that_of_scikit_learn():
    from sklearn.linear_model import Ridge

    frame = table()
    result = backward_elimination(frame, "target", features=FEATURES, ridge=20.0)
    for step in result.steps[:-1]:
        model = Ridge(20.0, tol=1e-12, solver="cholesky").fit(frame[list(step.terms)], frame["target"])
        np.testing.assert_allclose(step.params.iloc[1:], model.coef_, rtol=1e-8)
        assert step.params["Intercept"] == pytest.approx(model.intercept_, rel=1e-8)
    assert any("ridge" in note for note in result.notes)


def test_progress_is_told():
    seen = []
    backward_elimination(table(), "target", features=FEATURES, progress=lambda done, rows: seen.append((done, rows)))
    assert seen[-1] == (150, 150)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "best"}, "rule must be one of"),
        ({"rule": "size"}, "needs keep"),
        ({"rule": "aic", "keep": 2}, "both say which model"),
        ({"keep": -1}, "0 or more"),
        ({"keep": 6}, "only 5"),
        ({"keep": 1, "forced": ["a", "b"]}, "2 are forced"),
        ({"errors": "HC4"}, "errors must be one of"),
        ({"errors": "cluster"}, "needs clusters"),
        ({"errors": "HC3", "ridge": 1.0}, "with ridge"),
        ({"ridge": -1.0}, "ridge must be"),
        ({"ridge": float("nan")}, "ridge must be"),
        ({"method": "svd"}, "method must be one of"),
        ({"folds": 1}, "at least 2"),
        ({"resamples": -1}, "resamples"),
        ({"p_value": 2.0}, "p_value must be from 0 to 1"),
        ({"groups": {"x": ["a", "zz"]}}, "'zz'"),
        ({"groups": {"x": []}}, "no members"),
        ({"groups": {"x": ["a"], "y": ["a", "b"]}}, "two groups"),
        ({"groups": {"c": ["a", "b"]}}, "call it something else"),
        ({"forced": ["zz"]}, "zz"),
        ({"engine": "spark"}, "engine"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        backward_elimination(table(), "target", features=FEATURES, **options)


def test_no_rows():
    with pytest.raises(ValueError, match="no row"):
        backward_elimination(table().iloc[:0], "target", features=FEATURES)
    with pytest.raises(ValueError, match="no row"):
        backward_elimination(table().assign(a=np.nan), "target", features=FEATURES)
    with pytest.raises(ValueError, match="weight 0"):
        backward_elimination(table().assign(weight=0.0), "target", features=FEATURES, weights="weight")


def test_an_index_without_a_name_is_left_out_and_said(tmp_path):
    path = tmp_path / "t.csv"
    table()[["a", "b", "target"]].to_csv(path)
    found = backward_elimination(str(path), "target")
    assert found.features == ("a", "b")
    assert "'Unnamed: 0'" in found.notes[0]


def test_columns_that_hold_nothing_are_named_where_no_row_is_left():
    with pytest.raises(ValueError, match=r"most are missing in 'b' \(150 missing\), 'a' \(1 missing\): leave such"):
        backward_elimination(table().assign(a=lambda t: t["a"].where(t.index != 3), b=np.nan), "target")


def test_an_identifier_is_said():
    frame = table(n=30)[["a", "target"]].assign(name=[f"house {row}" for row in range(30)])
    assert "'name' has a level for every row or two" in backward_elimination(frame, "target").notes[0]
    frame["name"] = [f"house {row // 3}" for row in range(30)]
    assert backward_elimination(frame, "target").notes == ()


def test_weights_out_of_range_are_blamed_themselves():
    with pytest.raises(ValueError, match=r"the weights sum to 1e\+302"):
        backward_elimination(table().assign(weight=1e300), "target", features=FEATURES, weights="weight")


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        backward_elimination(table(), "target", features=FEATURES, seed=-1)


def test_a_model_of_groups_predicts_from_an_array_of_the_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = X[:, 0] + X[:, 3] + rng.normal(size=200)
    model = backward_elimination((X, y), "y", groups={"g": ["x1", "x2"]}, keep=3).model()
    fitted = np.column_stack([np.ones(200), X]) @ np.linalg.lstsq(np.column_stack([np.ones(200), X]), y, rcond=None)[0]
    np.testing.assert_allclose(model.predict(X), fitted, rtol=1e-9, atol=1e-12)


def test_nothing_is_computed_by_threads_that_wait_for_each_other(monkeypatch):
    seen, assemble = [], module.assemble

    def watched(*given):
        seen.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return assemble(*given)

    monkeypatch.setattr(module, "assemble", watched)
    x = np.random.default_rng(0).normal(size=(60, 2))
    with threadpool_limits(2):
        backward_elimination((x, x.sum(1)), "y")
    assert set(seen) == {1}
