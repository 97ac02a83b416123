"""The path beside a loop that refits with statsmodels at every step: order, and every number of every step."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import Ridge

from lsdr.regression.backward_elimination import backward_elimination

# statsmodels works on the columns as they are; over six orders of magnitude that costs it digits.
RTOL = 1e-8


def data(n=2000, p=30, seed=0):
    """Correlated columns of very different scales, a third of which matter."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(p, p)) / np.sqrt(p) + np.eye(p)
    x = (generator.normal(size=(n, p)) @ mixing + 3 * generator.normal(size=p)) * 10.0 ** generator.integers(-3, 4, p)
    weight = generator.normal(size=p) * (np.arange(p) % 3 == 0) / x.std(0)
    y = 5 + x @ weight + generator.normal(size=n) * (1 + 0.3 * np.abs(x[:, 0]) / x[:, 0].std())
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(p)]).assign(y=y)


def refits(table, terms, fit_one):
    """Backward elimination by refits: `fit_one(table of the columns left)` gives statsmodels' result."""
    left = dict(terms)
    while True:
        columns = [column for term in left.values() for column in term]
        fitted = fit_one(table[columns])
        if not left:
            yield {}, None, fitted
            return
        tests = {}
        for term, its in left.items():
            matrix = np.array([[float(name == column) for name in fitted.model.exog_names] for column in its])
            tests[term] = fitted.f_test(matrix)
        weakest = max(reversed(left), key=lambda term: (float(tests[term].pvalue), -float(tests[term].fvalue)))
        yield dict(left), (weakest, tests[weakest]), fitted
        del left[weakest]


def check(result, reference, rtol=RTOL):
    """Every step of ours against the refitted one."""
    steps = list(reference)
    assert len(result.steps) >= len(steps) - 1
    for step, (left, goes, fitted) in zip(result.steps, steps, strict=False):
        assert set(step.terms) == set(left)
        names = ["Intercept" if name == "const" else name for name in fitted.model.exog_names]
        close(step.params[names], fitted.params, rtol)
        close(step.bse[names], fitted.bse, rtol)
        close(step.tvalues[names], fitted.tvalues, rtol)
        close(step.rss, fitted.ssr, rtol)
        assert step.df_resid == pytest.approx(fitted.df_resid)
        if goes:
            name, test = goes
            assert step.removed == name
            close(step.F, test.fvalue, rtol)
            close(step.p_value, test.pvalue, 1e-7)
            assert step.df == test.df_num


def close(ours, theirs, rtol):
    np.testing.assert_allclose(np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float), rtol=rtol, atol=0)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_thirty_columns(method):
    table = data()
    names = [name for name in table if name != "y"]
    result = backward_elimination(table, "y", method=method, folds=0, rule="bic")
    check(result, refits(table, {name: [name] for name in names}, lambda x: sm.OLS(table.y, sm.add_constant(x)).fit()))
    n = len(table)
    for step in result.steps:
        assert step.aic == pytest.approx(n * np.log(step.rss / n) + 2 * (step.size + 1))
        assert step.bic == pytest.approx(n * np.log(step.rss / n) + np.log(n) * (step.size + 1))


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_without_an_intercept(method):
    table = data(p=12, seed=1)
    names = [name for name in table if name != "y"]
    result = backward_elimination(table, "y", method=method, intercept=False, folds=0, rule="bic")
    reference = list(
        refits(table, {name: [name] for name in names}, lambda x: sm.OLS(table.y, x).fit() if len(x.columns) else None)
    )[:-1]
    check(result, reference)
    close([step.r_squared for step in result.steps[:12]], [fitted.rsquared for _, _, fitted in reference], 1e-9)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_analytic_weights(method):
    table = data(p=12, seed=2)
    table["w"] = np.random.default_rng(3).gamma(2.0, size=len(table)) * 1e3
    table.loc[::7, "w"] = 0.0
    names = [name for name in table if name not in "yw"]
    result = backward_elimination(table, "y", features=names, weights="w", method=method, folds=0, rule="bic")
    kept = table[table.w > 0]
    assert result.n == len(kept)
    check(result, refits(kept, {name: [name] for name in names},
                         lambda x: sm.WLS(kept.y, sm.add_constant(x), weights=kept.w).fit()))  # fmt: skip


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_frequency_weights_are_repeated_rows(method):
    table = data(n=400, p=10, seed=4)
    counts = np.random.default_rng(5).integers(0, 5, len(table))
    names = [name for name in table if name != "y"]
    weighted = backward_elimination(table.assign(w=counts), "y", features=names, weights="w", weight_kind="frequency",
                                    method=method, folds=0, rule="bic")  # fmt: skip
    repeated = table.loc[table.index.repeat(counts)].reset_index(drop=True)
    assert weighted.n == len(repeated)
    check(weighted, refits(repeated, {name: [name] for name in names},
                           lambda x: sm.OLS(repeated.y, sm.add_constant(x)).fit()))  # fmt: skip


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_factors_go_whole_by_their_f_test(method):
    table = data(p=8, seed=6)
    generator = np.random.default_rng(7)
    table["region"] = generator.choice(["north", "south", "east", "west"], len(table))
    table["grade"] = generator.choice(list("abcdefghij"), len(table))
    table["y"] += 0.4 * (table.region == "south") * table.y.std()
    numeric = [f"x{j}" for j in range(8)]
    dummies = {}
    for factor in ("region", "grade"):
        levels = sorted(table[factor].unique())[1:]
        dummies[factor] = {f"{factor}[{level}]": (table[factor] == level).astype(float) for level in levels}
    wide = pd.concat([table[numeric], *(pd.DataFrame(columns) for columns in dummies.values())], axis=1)
    terms = {name: [name] for name in numeric} | {factor: list(columns) for factor, columns in dummies.items()}
    result = backward_elimination(
        table, "y", features=[*numeric, "region", "grade"], method=method, folds=0, rule="bic"
    )
    check(result, refits(wide, terms, lambda x: sm.OLS(table.y, sm.add_constant(x)).fit()))
    for step in result.steps:
        if step.removed in dummies:
            assert step.df == len(dummies[step.removed])
            assert np.isnan(step.t)


def test_forced_terms_stay():
    table = data(p=8, seed=8)
    full = backward_elimination(table, "y", folds=0, rule="bic")
    weakest = full.steps[0].removed
    result = backward_elimination(table, "y", forced=[weakest], folds=0, rule="bic")
    assert all(weakest in step.terms for step in result.steps)
    assert result.steps[0].removed == min(full.steps[0].tvalues.drop(["Intercept", weakest]).abs().items(),
                                          key=lambda item: item[1])[0]  # fmt: skip
    assert result.steps[-1].terms == (weakest,)
    assert result.steps[-1].removed is None


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("alpha", [0.5, 300.0])
def test_ridge_is_scikit_learns(alpha, method):
    table = data(p=10, seed=9)
    names = [name for name in table if name != "y"]
    # Scales within reach of the penalty: it acts on the coefficients in the units of the data.
    table[names] = table[names] / table[names].std()
    result = backward_elimination(table, "y", ridge=alpha, method=method, folds=0, rule="bic")
    for step in result.steps[:-1]:
        x = table[list(step.terms)].to_numpy()
        reference = Ridge(alpha=alpha, solver="cholesky", tol=0).fit(x, table.y)
        close(step.params[list(step.terms)], reference.coef_, 1e-9)
        close(step.params["Intercept"], reference.intercept_, 1e-9)
        close(step.rss, np.square(table.y - reference.predict(x)).sum(), 1e-9)
        centred = x - x.mean(0)
        gram = centred.T @ centred
        penalised = np.linalg.inv(gram + alpha * np.eye(len(gram)))
        df_resid = len(table) - 1 - np.trace(penalised @ gram)
        assert step.df_resid == pytest.approx(df_resid, rel=1e-9)
        variance = step.rss / df_resid * penalised @ gram @ penalised
        close(step.bse[list(step.terms)], np.sqrt(np.diag(variance)), 1e-8)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_heteroskedastic_errors_of_full_and_chosen_model(kind):
    table = data(p=8, seed=10)
    result = backward_elimination(table, "y", errors=kind, folds=0, rule="bic")
    for step in (result.steps[0], result.step()):
        fitted = sm.OLS(table.y, sm.add_constant(table[list(step.terms)])).fit(cov_type=kind)
        assert step.exact
        close(step.bse, fitted.bse, 1e-9)
        close(step.params, fitted.params, 1e-9)


def test_cluster_errors_along_the_whole_path():
    table = data(p=6, seed=11)
    table["g"] = np.random.default_rng(12).integers(0, 40, len(table)).astype(str)
    names = [f"x{j}" for j in range(6)]
    result = backward_elimination(table, "y", features=names, clusters="g", errors="cluster", folds=0, rule="bic")
    for step in result.steps[:-1]:
        x = sm.add_constant(table[list(step.terms)])
        fitted = sm.OLS(table.y, x).fit(cov_type="cluster", cov_kwds={"groups": table.g}, use_t=True)
        assert step.exact
        close(step.bse, fitted.bse, 1e-9)
        assert step.removed == fitted.tvalues.drop("const").abs().idxmin()
