"""HC0 to HC3 against statsmodels' cov_type."""

import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.regression.batch import Batch
from lsdr.regression.heteroskedastic import KINDS, Heteroskedastic
from lsdr.regression.whitened import Whitened

COLUMNS = tuple((f"x{j}", "") for j in range(6))


def table(n=300, seed=0, weighted=False):
    """Rows with noise that grows with the first column; two columns are correlated, scales and means differ."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 6)) * [1, 10, 1e-3, 1, 5, 1] + [0, 100, 0, -3, 0, 1]
    x[:, 3] += 3 * x[:, 0]
    y = 5 + x @ [1, 0.1, 0, 0.5, 0, 0.2] + generator.normal(size=n) * np.exp(0.5 * x[:, 0])
    return x, y, generator.uniform(0.2, 3, size=n) if weighted else None


def batches(x, y, weights=None, size=70, clusters=None, columns=COLUMNS, blocks=10):
    """The rows cut into batches, with blocks."""
    block = np.random.default_rng(1).integers(0, blocks, size=len(y))
    for start in range(0, len(y), size):
        rows = slice(start, start + size)
        w = None if weights is None else weights[rows]
        c = None if clusters is None else clusters[rows]
        yield Batch(columns, x[rows], y[rows], w, c, block[rows])


def fitted(x, y, weights=None, keep=range(6), intercept=True, frequency=False, blocks=None):
    """The model of some columns, by numpy."""
    keep = list(keep)
    w = np.ones(len(y)) if weights is None else weights
    mean = np.average(x[:, keep], axis=0, weights=w) if intercept else np.zeros(len(keep))
    mean_y = np.average(y, weights=w) if intercept else 0.0
    centred = x[:, keep] - mean
    inverse = np.linalg.inv((centred * w[:, None]).T @ centred)
    b = inverse @ (centred * w[:, None]).T @ (y - mean_y)
    columns = tuple(COLUMNS[j] for j in keep)
    n = float(w.sum()) if frequency else float((w > 0).sum())
    left = n - len(keep) - intercept
    root = np.linalg.cholesky(inverse) if keep else np.zeros((0, 0))
    return Whitened(columns, b, mean, float(mean_y), root, float(w.sum()), n, left, intercept, blocks)


def swept(state, parts):
    """The batches in two states, merged."""
    parts = list(parts)
    first, second = state(), state()
    for part in parts[:2]:
        first.add(part)
    for part in parts[2:]:
        second.add(part)
    return first.merge(second)


def same(ours, theirs, tolerance=1e-9):
    """Covariance matrices compared in units of the standard errors."""
    se = np.sqrt(np.diag(theirs))
    np.testing.assert_allclose(ours / np.outer(se, se), theirs / np.outer(se, se), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
def test_the_whole_covariance_is_statsmodels(kind, weighted, intercept):
    x, y, weights = table(weighted=weighted)
    models = [fitted(x, y, weights, keep, intercept) for keep in (range(6), [0, 3, 5], [])]
    if not intercept:
        models = models[:2]
    state = swept(lambda: Heteroskedastic(models, kind), batches(x, y, weights))
    for place, keep in enumerate([list(range(6)), [0, 3, 5], []][: len(models)]):
        design = sm.add_constant(x[:, keep], has_constant="add") if intercept else x[:, keep]
        theirs = sm.WLS(y, design, weights=1.0 if weights is None else weights).fit(cov_type=kind)
        same(state.covariance(place), theirs.cov_params())


@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_are_repetitions(kind):
    x, y, _ = table(n=80)
    counts = np.random.default_rng(3).integers(0, 4, size=80)
    long_x, long_y = np.repeat(x, counts, axis=0), np.repeat(y, counts)
    model = fitted(x, y, counts.astype(float), frequency=True)
    state = swept(lambda: Heteroskedastic([model], kind, True), batches(x, y, counts.astype(float), size=20))
    theirs = sm.OLS(long_y, sm.add_constant(long_x)).fit(cov_type=kind)
    same(state.covariance(0), theirs.cov_params())


def test_rows_without_weight_and_columns_not_yet_seen_count_for_nothing():
    x, y, _ = table(n=120)
    x[:60, 5] = 0
    weights = np.ones(120)
    weights[::7] = 0
    model = fitted(x, y, weights)
    state = Heteroskedastic([model], "HC1")
    for part in batches(x[:60, :5], y[:60], weights[:60], columns=COLUMNS[:5]):
        state.add(part)
    for part in batches(x[60:, ::-1], y[60:], weights[60:], columns=COLUMNS[::-1]):
        state.add(part)
    kept = weights > 0
    theirs = sm.OLS(y[kept], sm.add_constant(x[kept])).fit(cov_type="HC1")
    same(state.covariance(0), theirs.cov_params())


def test_collinear_columns_keep_their_digits():
    x, y, _ = table(n=200)
    x[:, 4] = x[:, 0] + 1e-4 * x[:, 4]  # variance inflation about 1e8
    q, r = np.linalg.qr(x - x.mean(0))
    b = np.linalg.solve(r, q.T @ (y - y.mean()))
    model = Whitened(COLUMNS, b, x.mean(0), float(y.mean()), np.linalg.inv(r), 200.0, 200.0, 193.0)
    ours = Heteroskedastic([model], "HC3").add(next(batches(x, y, size=200))).covariance(0)
    theirs = sm.OLS(y, sm.add_constant(x)).fit(method="qr", cov_type="HC0")
    exact = Heteroskedastic([model], "HC0").add(next(batches(x, y, size=200))).covariance(0)
    np.testing.assert_allclose(np.diag(exact), theirs.bse**2, rtol=1e-6)
    assert (np.diag(ours) > np.diag(exact)).all()


def test_the_blocks_of_a_model_add_up():
    x, y, _ = table()
    whole = fitted(x, y)
    models = [fitted(x, y, blocks=blocks) for blocks in ((0, 1, 2), (3, 4, 5, 6, 7, 8, 9))]
    state = swept(lambda: Heteroskedastic([whole, *models], "HC3"), batches(x, y))
    np.testing.assert_allclose(state.meats[0], state.meats[1] + state.meats[2], rtol=1e-12, atol=1e-12)
    assert np.trace(state.meats[1]) < np.trace(state.meats[2])


def test_a_row_that_a_column_fits_by_itself_is_left_out_and_counted():
    x, y, _ = table(n=100)
    x[:, 5] = 0
    x[17, 5] = 1
    for size in (100, 20, 8):  # in one state, in the first of two, in the second
        state = swept(lambda: Heteroskedastic([fitted(x, y)], "HC3"), batches(x, y, size=size))
        assert state.full_leverage == [1]
    assert np.isfinite(state.covariance(0)).all()
    kept = np.arange(100) != 17
    theirs = sm.OLS(y[kept], sm.add_constant(x[kept, :5])).fit(cov_type="HC3")
    same(state.covariance(0)[:6, :6], theirs.cov_params())


def test_a_wrong_kind_is_named():
    with pytest.raises(ValueError, match="HC0, HC1, HC2, HC3"):
        Heteroskedastic([], "HC4")
