"""Robust paths against a loop of statsmodels fits."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.moments import Moments
from lsdr.regression.clusters import ClusterGrams
from lsdr.regression.columns import Term
from lsdr.regression.eliminate import eliminate
from lsdr.regression.path import Current
from lsdr.regression.robust import SubmodelErrors
from lsdr.regression.robust_errors import RobustErrors, whitened
from lsdr.regression.system import system_of_factor, system_of_moments

_spec = importlib.util.spec_from_file_location("hc", Path(__file__).with_name("test_heteroskedastic.py"))
hc = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hc)
batches, same = hc.batches, hc.same

P = 7
COLUMNS = tuple((f"x{j}", "") for j in range(P))
TERMS = tuple(Term(f"x{j}", (COLUMNS[j],)) for j in range(P))
GROUPED = (*TERMS[:4], Term("group", COLUMNS[4:]))


def table(n=250, seed=0, clustered=False):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, P)) @ (np.eye(P) + 0.4 * generator.normal(size=(P, P))) + 3
    clusters = generator.integers(0, 23, size=n)
    noise = generator.normal(size=n) * np.exp(0.8 * x[:, 0] - 2.4)
    if clustered:
        x[:, :3] += generator.normal(size=(23, 3))[clusters]
        noise += generator.normal(size=23)[clusters]
    y = x @ np.linspace(0, 0.3, P) + noise
    return x, y, clusters


def made(x, y, weights=None, intercept=True, terms=TERMS, ridge=0.0, frequency=False):
    rows = len(y) if not frequency else weights.sum()
    moments = (
        Moments.of(np.column_stack([x, y])) if weights is None else Moments.of(np.column_stack([x, y]), None, weights)
    )
    return system_of_moments(moments, COLUMNS, terms, rows=rows, intercept=intercept, ridge=ridge)


class Reads:
    """The rows as a source that counts how often it has been read."""

    def __init__(self, *rows, **named):
        self.rows, self.named, self.passes = rows, named, 0

    def __call__(self, empty):
        self.passes += 1
        parts = list(batches(*self.rows, columns=COLUMNS, size=64, **self.named))
        first, second = empty(), empty()
        for part in parts[:3]:
            first.add(part)
        for part in parts[3:]:
            second.add(part)
        return first.merge(second)


def loop(x, y, weights=None, intercept=True, **fit):
    """Backward elimination by refitting: the order, and the standard errors of every step."""
    left, order, errors = list(range(P)), [], []
    while True:
        design = sm.add_constant(x[:, left], has_constant="add") if intercept else x[:, left]
        if not design.shape[1]:
            return order, errors
        found = sm.WLS(y, design, weights=1.0 if weights is None else weights).fit(**fit)
        errors.append((tuple(left), np.asarray(found.bse)))
        if not left:
            return order, errors
        order.append(left.pop(int(np.argmin(np.abs(found.tvalues[int(intercept) :])))))


def check(path, order, errors, intercept=True, tolerance=1e-8):
    assert path.order == tuple(f"x{j}" for j in order)
    for step, (left, bse) in enumerate(errors):
        ours = np.sqrt(path.variances[step, list(left)])
        np.testing.assert_allclose(ours, bse[int(intercept) :], rtol=tolerance)
        if intercept:
            assert np.sqrt(path.intercept_variances[step]) == pytest.approx(bse[0], rel=tolerance)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_heteroskedastic_path_is_the_loop_of_refits(kind, seed):
    x, y, _ = table(seed=seed)
    reads = Reads(x, y)
    robust = RobustErrors(kind, made(x, y), reads, blocks=10)
    assert robust.label == "exact"
    assert 2 <= reads.passes <= 4
    check(robust.path, *loop(x, y, cov_type=kind))
    np.testing.assert_allclose(robust.path.df_t, robust.path.df_resid)


@pytest.mark.parametrize("seed", [13, 30])
def test_an_order_that_the_exact_errors_change_is_found_again(seed):
    x, y, _ = table(n=60, seed=seed)
    reads = Reads(x, y)
    rough = RobustErrors("HC3", made(x, y), Reads(x, y), blocks=10, refine=False).path.order
    robust = RobustErrors("HC3", made(x, y), reads, blocks=10)
    assert robust.path.order != rough
    assert (robust.label, reads.passes) == ("exact", 3)
    check(robust.path, *loop(x, y, cov_type="HC3"))


@pytest.mark.parametrize("intercept", [True, False])
def test_with_weights_and_without_an_intercept(intercept):
    x, y, _ = table()
    weights = np.random.default_rng(9).uniform(0.1, 4, size=len(y))
    robust = RobustErrors("HC3", made(x, y, weights, intercept), Reads(x, y, weights), blocks=10)
    check(robust.path, *loop(x, y, weights, intercept, cov_type="HC3"), intercept)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_clustered_path_is_the_loop_of_refits_and_reads_nothing_again(intercept, weighted):
    x, y, clusters = table(clustered=True)
    weights = np.random.default_rng(9).uniform(0.1, 4, size=len(y)) if weighted else None
    reads = Reads(x, y, weights, clusters=clusters)
    grams = reads(lambda: ClusterGrams(COLUMNS, x[:64].mean(0), float(y[:64].mean())))
    robust = RobustErrors("cluster", made(x, y, weights, intercept), reads, blocks=10, grams=grams, repeatable=False)
    assert robust.label == "exact"
    assert reads.passes == 1
    check(robust.path, *loop(x, y, weights, intercept, cov_type="cluster", cov_kwds={"groups": clusters}), intercept)
    assert (robust.path.df_t == 22).all()


def test_clusters_that_take_too_much_memory_are_read_again():
    x, y, clusters = table(clustered=True)
    reads = Reads(x, y, clusters=clusters)
    grams = reads(lambda: ClusterGrams(COLUMNS, x[:64].mean(0), float(y[:64].mean()), memory=1000))
    robust = RobustErrors("cluster", made(x, y), reads, blocks=10, grams=grams)
    assert robust.label == "exact"  # of every model on the path, in passes more
    assert "memory" in robust.notes[0]
    check(robust.path, *loop(x, y, cov_type="cluster", cov_kwds={"groups": clusters}))
    with pytest.raises(ValueError, match="function that returns"):
        RobustErrors("cluster", made(x, y), reads, blocks=10, grams=grams, repeatable=False)


@pytest.mark.parametrize("kind", ["HC3", "cluster"])
def test_without_refinement_the_full_model_is_exact_and_the_rest_near(kind):
    x, y, clusters = table(n=2000, clustered=True)
    robust = RobustErrors(kind, made(x, y), Reads(x, y, clusters=clusters), blocks=10, refine=False)
    assert robust.label == "approximate"
    assert "approximate" in robust.notes[-1]
    fit = {"cov_type": kind} | ({"cov_kwds": {"groups": clusters}} if kind == "cluster" else {})
    for step in range(P):
        left = [j for j in range(P) if not np.isnan(robust.path.coefficients[step, j])]
        expected = sm.OLS(y, sm.add_constant(x[:, left])).fit(**fit).bse[1:]
        ours = np.sqrt(robust.path.variances[step, left])
        np.testing.assert_allclose(ours, expected, rtol=1e-9 if step == 0 else 0.25)


def test_a_submodel_by_the_full_models_residuals_is_the_sandwich_written_out():
    x, y, _ = table()
    system = made(x, y)
    path = eliminate(system)
    full = whitened(system, path, 0)
    state = hc.Heteroskedastic([full], "HC0")
    for part in batches(x, y, columns=COLUMNS):
        state.add(part)
    errors = SubmodelErrors(full, state.meats[0], "HC0")
    omega = sm.OLS(y, sm.add_constant(x)).fit().resid ** 2
    for keep in ([0, 2, 3, 6], [2, 6], [1, 5], [0, 1, 2, 3, 4, 5, 6]):
        design = sm.add_constant(x[:, keep])
        bread = np.linalg.inv(design.T @ design)
        expected = bread @ (design * omega[:, None]).T @ design @ bread
        current = Current(np.array(keep), bread[1:, 1:], np.zeros(len(keep)), 0.0, 250.0 - len(keep) - 1, 1.0)
        same(errors(current), expected[1:, 1:])
        assert errors.intercept_variance(current) == pytest.approx(expected[0, 0], rel=1e-9)


def test_folds_and_halves_have_clustered_errors_of_their_own_rows():
    x, y, clusters = table(clustered=True)
    reads = Reads(x, y, clusters=clusters)
    grams = reads(lambda: ClusterGrams(COLUMNS, x[:64].mean(0), float(y[:64].mean())))
    robust = RobustErrors("cluster", made(x, y), reads, blocks=10, grams=grams)
    block = np.concatenate([part.blocks for part in batches(x, y, columns=COLUMNS, size=64)])
    here = np.isin(block, [0, 2, 3, 7])
    system = made(x[here], y[here])
    path = eliminate(system, standard_errors=robust.of_blocks(system, [0, 2, 3, 7]))
    check(path, *loop(x[here], y[here], cov_type="cluster", cov_kwds={"groups": clusters[here]}))


@pytest.mark.parametrize("kind", ["HC3", "cluster"])
def test_folds_without_another_pass_are_the_sandwich_written_out(kind):
    x, y, clusters = table(clustered=True)
    robust = RobustErrors(kind, made(x, y), Reads(x, y, clusters=clusters), blocks=10, refine=False)
    block = np.concatenate([part.blocks for part in batches(x, y, columns=COLUMNS, size=64)])
    here = np.isin(block, [1, 4, 5, 6, 8])
    system = made(x[here], y[here])
    path = eliminate(system, standard_errors=robust.of_blocks(system, [1, 4, 5, 6, 8]))
    full = sm.OLS(y, sm.add_constant(x)).fit()
    leverage = full.get_influence().hat_matrix_diag
    design = sm.add_constant(x[here])
    bread = np.linalg.inv(design.T @ design)
    if kind == "HC3":
        scores, factor = design * (full.resid / (1 - leverage))[here][:, None], 1.0
    else:
        rows = design * full.resid[here][:, None]
        scores = np.array([rows[clusters[here] == c].sum(0) for c in np.unique(clusters[here])])
        g, n = len(scores), here.sum()
        factor = g / (g - 1) * (n - 1) / (n - P - 1)
    expected = np.diag(bread @ scores.T @ scores @ bread) * factor
    np.testing.assert_allclose(path.variances[0], expected[1:], rtol=1e-8)
    assert path.intercept_variances[0] == pytest.approx(expected[0], rel=1e-8)


@pytest.mark.parametrize("kind", ["HC2", "cluster"])
def test_a_model_of_some_blocks_is_exact_in_one_more_pass(kind):
    x, y, clusters = table(clustered=True)
    robust = RobustErrors(kind, made(x, y), Reads(x, y, clusters=clusters), blocks=10)
    block = np.concatenate([part.blocks for part in batches(x, y, columns=COLUMNS, size=64)])
    here = np.isin(block, [1, 4, 5, 6, 8])
    system = made(x[here], y[here], terms=TERMS[2:5])
    model = whitened(system, eliminate(system), 0, blocks=[1, 4, 5, 6, 8])
    fit = {"cov_type": kind} | ({"cov_kwds": {"groups": clusters[here]}} if kind == "cluster" else {})
    theirs = sm.OLS(y[here], sm.add_constant(x[here][:, 2:5])).fit(**fit)
    same(robust.exact([model])[0], theirs.cov_params())


def test_groups_go_by_the_robust_wald_test():
    x, y, _ = table()
    robust = RobustErrors("HC1", made(x, y, terms=GROUPED), Reads(x, y), blocks=10)
    step = robust.path.order.index("group")
    left = sorted(int(name[1:]) for name in set(robust.path.order[step:]) - {"group"})
    design = sm.add_constant(x[:, [*left, 4, 5, 6]])
    theirs = sm.OLS(y, design).fit(cov_type="HC1", use_t=True)
    restriction = np.eye(design.shape[1])[-3:]
    expected = theirs.f_test(restriction)
    assert robust.path.F[step] == pytest.approx(float(np.squeeze(expected.fvalue)), rel=1e-8)
    assert robust.path.p_value[step] == pytest.approx(float(expected.pvalue), rel=1e-8)


def test_qr_systems_and_collinear_columns():
    x, y, _ = table()
    x[:, 5] = x[:, 1] + 1e-6 * x[:, 5]
    r = np.linalg.qr(np.column_stack([np.ones(len(y)), x, y]), mode="r")
    system = system_of_factor(
        r, COLUMNS, TERMS, rows=len(y), weight=len(y), intercept=True, shift=np.zeros(P + 1), ridge=0.0
    )
    robust = RobustErrors("HC0", system, Reads(x, y), blocks=10)
    q, r = np.linalg.qr(np.column_stack([np.ones(len(y)), x]))
    rows = np.linalg.solve(r, (q * (y - q @ (q.T @ y))[:, None]).T)
    np.testing.assert_allclose(robust.path.variances[0], (rows**2).sum(1)[1:], rtol=1e-6)


def test_what_cannot_be_is_said():
    x, y, _ = table()
    system = made(x, y)
    with pytest.raises(ValueError, match="function that returns"):
        RobustErrors("HC3", system, Reads(x, y), blocks=10, repeatable=False)
    with pytest.raises(ValueError, match="HC0, HC1"):
        RobustErrors("HC9", system, Reads(x, y), blocks=10)
    with pytest.raises(ValueError, match="two clusters"):
        RobustErrors("cluster", system, Reads(x, y, clusters=np.zeros(250)), blocks=10)
    x[:, 5] = 0
    x[17, 5] = 1
    assert any("leverage 1" in note for note in RobustErrors("HC3", made(x, y), Reads(x, y), blocks=10).notes)
