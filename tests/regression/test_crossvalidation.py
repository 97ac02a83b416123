import numpy as np
import pytest
import statsmodels.api as sm

from lsdr.regression.batch import Batch
from lsdr.regression.columns import Term
from lsdr.regression.crossvalidation import heldout
from lsdr.regression.gram import Gram
from lsdr.regression.r_factor import RFactor

NAMES = ("a", "b", "c", "d", "e")
COLUMNS = tuple((name, "") for name in NAMES)
TERMS = tuple(Term(name, ((name, ""),)) for name in NAMES)
BLOCKS = 12


def table(n=90, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)) * [1, 10, 0.1, 1, 1] + offset
    y = x @ [1.0, 0.02, 3.0, 0.0, 0.1] + rng.normal(size=n) + 5
    return x, y, rng.integers(0, BLOCKS, n), rng.uniform(0.5, 3.0, n)


def state_of(route, x, y, blocks, weights=None, intercept=True, frequency=False, columns=COLUMNS):
    shift = np.append(x.mean(0), y.mean()) if intercept else np.zeros(x.shape[1] + 1)
    state = (
        Gram(BLOCKS, intercept, frequency) if route == "gram" else RFactor(BLOCKS, intercept, frequency, shift, columns)
    )
    state.add(Batch(columns, x, y, weights, None, blocks))
    return state


def fit(x, y, weights, intercept, ridge):
    """Coefficients (intercept first) and t values of the columns, by refitting."""
    design = np.column_stack([np.ones(len(y)), x]) if intercept else x
    if ridge:
        # The penalty as rows of its own, the intercept free.
        penalty = np.sqrt(ridge) * np.eye(x.shape[1])
        root = np.sqrt(weights)[:, None]
        rows = np.vstack([design * root, np.column_stack([np.zeros(len(penalty)), penalty]) if intercept else penalty])
        b = np.linalg.lstsq(rows, np.concatenate([y * root[:, 0], np.zeros(len(penalty))]), rcond=None)[0]
        inverse = np.linalg.inv(rows.T @ rows)
        variance = np.diag(inverse @ (design * root).T @ (design * root) @ inverse)
        return b, (b**2 / variance)[int(intercept) :]
    found = sm.WLS(y, design, weights).fit()
    return found.params, np.abs(found.tvalues[int(intercept) :])


def brute(x, y, weights, fold, intercept=True, ridge=0.0, forced=()):
    """Pooled held-out error by size, each fold eliminating for itself, row by row."""
    free = x.shape[1] - len(forced)
    squares = {}
    for number in np.unique(fold):
        train, test = fold != number, fold == number
        left = list(range(x.shape[1]))
        for step in range(free + 1):
            b, t = (
                fit(x[train][:, left], y[train], weights[train], intercept, ridge)
                if left or intercept
                else (np.zeros(0), np.zeros(0))
            )
            design = np.column_stack([np.ones(test.sum()), x[test][:, left]]) if intercept else x[test][:, left]
            squares[number, step] = weights[test] @ (y[test] - design @ b) ** 2
            if step < free:
                drop = min((k for k in range(len(left)) if left[k] not in forced), key=lambda k: t[k])
                left.pop(drop)
    numbers = np.unique(fold)
    sse = np.array([[squares[number, step] for step in range(free + 1)] for number in numbers])
    sums = np.array([weights[fold == number].sum() for number in numbers])
    return sse.sum(0) / sums.sum(), sse / sums[:, None], sums


def folds_of(k):
    return [[block for block in range(BLOCKS) if block % k == number] for number in range(k)]


@pytest.mark.parametrize("route", ["gram", "qr"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_refitting_row_by_row(route, intercept, weighted):
    x, y, blocks, w = table()
    state = state_of(route, x, y, blocks, w if weighted else None, intercept)
    found = heldout(state, folds_of(4), TERMS, np.arange(5, -1, -1))
    w = w if weighted else np.ones(len(y))
    mse, by_fold, sums = brute(x, y, w, blocks % 4, intercept)
    np.testing.assert_allclose(found.mse, mse, rtol=1e-11)
    np.testing.assert_allclose(found.folds, by_fold, rtol=1e-11)
    np.testing.assert_allclose(found.weights, sums)
    share = sums / sums.sum()
    np.testing.assert_allclose(found.se, np.sqrt(share @ (by_fold - mse) ** 2 / 3), rtol=1e-10)


@pytest.mark.parametrize("route", ["gram", "qr"])
@pytest.mark.parametrize("intercept", [True, False])
def test_equals_refitting_with_ridge(route, intercept):
    x, y, blocks, w = table(seed=1)
    state = state_of(route, x, y, blocks, w, intercept)
    found = heldout(state, folds_of(3), TERMS, np.arange(5, -1, -1), ridge=4.0)
    mse, _, _ = brute(x, y, w, blocks % 3, intercept, ridge=4.0)
    np.testing.assert_allclose(found.mse, mse, rtol=1e-10)


def test_equal_folds_have_the_plain_standard_error():
    x, y, _, _ = table(n=96)
    found = heldout(state_of("gram", x, y, np.arange(96) % BLOCKS), folds_of(4), TERMS, np.arange(5, -1, -1))
    np.testing.assert_allclose(found.mse, found.folds.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.se, found.folds.std(0, ddof=1) / 2, rtol=1e-12)


def test_frequencies_are_repeated_rows():
    x, y, blocks, _ = table(n=60)
    times = np.random.default_rng(2).integers(0, 4, 60)
    weighted = state_of("gram", x, y, blocks, times.astype(float), frequency=True)
    repeated = state_of("gram", *(np.repeat(part, times, axis=0) for part in (x, y, blocks)))
    sizes = np.arange(5, -1, -1)
    one, other = (heldout(state, folds_of(3), TERMS, sizes) for state in (weighted, repeated))
    np.testing.assert_allclose(one.mse, other.mse, rtol=1e-11)
    np.testing.assert_allclose(one.weights, other.weights)


def test_forced_terms_stay_in_every_fold():
    x, y, blocks, _ = table(seed=4)
    terms = tuple(Term(term.name, term.columns, term.name in "dc") for term in TERMS)
    found = heldout(state_of("gram", x, y, blocks), folds_of(4), terms, np.arange(5, 1, -1))
    mse, _, _ = brute(x, y, np.ones(len(y)), blocks % 4, forced=(2, 3))
    np.testing.assert_allclose(found.mse, mse, rtol=1e-11)


def test_selection_is_made_without_the_fold():
    # Were the order taken from all rows, the held-out error of pure noise would look better than that of nothing.
    gains = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y, blocks = rng.normal(size=(60, 5)), rng.normal(size=60), np.arange(60) % BLOCKS
        found = heldout(state_of("gram", x, y, blocks), folds_of(6), TERMS, np.arange(5, -1, -1))
        gains.append(found.mse[4] - found.mse[5])
    assert np.mean(gains) > 0


@pytest.mark.parametrize("route", ["gram", "qr"])
def test_a_mean_far_from_zero_costs_no_digits(route):
    # On a grid of eighths, so that adding 1e8 rounds nothing.
    x, y, blocks, _ = table()
    x, y = np.round(x * 8) / 8, np.round(y * 8) / 8
    sizes = np.arange(5, -1, -1)
    near = heldout(state_of(route, x, y, blocks), folds_of(4), TERMS, sizes)
    far = heldout(state_of(route, x + 1e8, y - 1e8, blocks), folds_of(4), TERMS, sizes)
    np.testing.assert_allclose(far.mse, near.mse, rtol=1e-7)


def test_where_a_fold_tells_fewer_terms_apart_its_largest_model_stands_for_larger_ones():
    x, y, blocks, _ = table()
    # e is 0 but in fold 0: without that fold it is constant.
    x[:, 4] = np.where(blocks % 4 == 0, x[:, 4], 0.0)
    found = heldout(state_of("gram", x, y, blocks), folds_of(4), TERMS, np.arange(5, -1, -1))
    assert found.folds[0, 0] == found.folds[0, 1]
    assert found.folds[1, 0] != found.folds[1, 1]
    test = blocks % 4 == 0
    b, _ = fit(x[~test][:, :4], y[~test], np.ones((~test).sum()), True, 0.0)
    residuals = y[test] - np.column_stack([np.ones(test.sum()), x[test][:, :4]]) @ b
    assert found.folds[0, 0] == pytest.approx(np.mean(residuals**2), rel=1e-10)


@pytest.mark.parametrize("route", ["gram", "qr"])
def test_an_exact_relation_is_predicted_without_error(route):
    x, _, blocks, _ = table()
    y = x @ [1.0, 0.5, 0.0, 0.0, 0.0] + 3
    found = heldout(state_of(route, x, y, blocks), folds_of(4), TERMS, np.arange(5, -1, -1))
    assert (found.mse[:4] < 1e-24).all()
    assert found.mse[4] > 0.1


def test_empty_folds_are_left_out_and_one_is_not_enough():
    x, y, blocks, _ = table()
    sizes = np.arange(5, -1, -1)
    state = state_of("gram", x, y, blocks % 3)
    assert len(heldout(state, folds_of(4), TERMS, sizes).folds) == 3
    assert heldout(state_of("gram", x, y, np.zeros(90, dtype=np.intp)), folds_of(4), TERMS, sizes) is None
    assert heldout(state, [], TERMS, sizes) is None


def test_factors_are_dropped_whole():
    rng = np.random.default_rng(8)
    region = rng.integers(0, 3, 120)
    dummies = np.column_stack([region == 1, region == 2]).astype(float)
    x = np.column_stack([dummies, rng.normal(size=(120, 2))])
    y = x @ [1.0, -1.0, 0.1, 0.6] + rng.normal(size=120)
    columns = (("region", "1"), ("region", "2"), ("u", ""), ("v", ""))
    terms = (Term("region", columns[:2]), Term("u", columns[2:3]), Term("v", columns[3:]))
    blocks = np.arange(120) % BLOCKS
    found = heldout(state_of("gram", x, y, blocks, columns=columns), folds_of(4), terms, np.arange(3, -1, -1))
    parts = {"region": [0, 1], "u": [2], "v": [3]}
    sse = np.zeros(4)
    for number in range(4):
        train = blocks % 4 != number
        left = ["region", "u", "v"]
        for step in range(4):
            design = sm.add_constant(x[:, [k for name in left for k in parts[name]]], has_constant="add")
            refit = sm.OLS(y[train], design[train]).fit()
            sse[step] += ((y[~train] - design[~train] @ refit.params) ** 2).sum()
            if left:
                p = []
                for name in left:
                    rest = [k for other in left if other != name for k in parts[other]]
                    less = sm.OLS(y[train], sm.add_constant(x[train][:, rest], has_constant="add")).fit()
                    p.append(refit.compare_f_test(less)[1])
                left.pop(int(np.argmax(p)))
    np.testing.assert_allclose(found.mse, sse / 120, rtol=1e-10)
