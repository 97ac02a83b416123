"""The whole path against refits: statsmodels, scikit-learn, exact arithmetic."""

import mpmath as mp
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f as f_distribution
from sklearn.linear_model import Ridge

from lsdr.moments import Moments
from lsdr.regression.columns import Term
from lsdr.regression.eliminate import eliminate, eliminate_many
from lsdr.regression.system import system_of_factor, system_of_moments

ROUTES = ["gram", "qr"]


def numbers(p, forced=()):
    columns = tuple((f"x{i}", "") for i in range(p))
    return columns, tuple(Term(name, ((name, level),), name in forced) for name, level in columns)


def grouped(sizes, forced=()):
    columns, terms = [], []
    for place, size in enumerate(sizes):
        own = tuple((f"g{place}", f"level {i}" if size > 1 else "") for i in range(size))
        columns += own
        terms.append(Term(f"g{place}", own, f"g{place}" in forced))
    return tuple(columns), tuple(terms)


def system(route, x, y, design, intercept=True, ridge=0.0, weights=None, rows=None):
    columns, terms = design
    z = np.column_stack([x, y])
    w = np.ones(len(y)) if weights is None else weights
    rows = len(y) if rows is None else rows
    if route == "gram":
        moments = Moments.of(z, weights=w) if weights is not None else Moments.of(z)
        return system_of_moments(moments, columns, terms, rows=rows, intercept=intercept, ridge=ridge)
    shift = z[:3].mean(0) if intercept else np.zeros(z.shape[1])
    z = np.column_stack([np.ones(len(y)), z - shift]) if intercept else z
    z = np.vstack([np.sqrt(w)[:, None] * z, np.zeros((z.shape[1], z.shape[1]))])
    factor = np.linalg.qr(z, mode="r")
    return system_of_factor(
        factor, columns, terms, rows=rows, weight=float(w.sum()), intercept=intercept, shift=shift, ridge=ridge
    )


def table(n=120, p=8, seed=0, offset=3.0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, p)) @ generator.normal(size=(p, p)) + offset * generator.normal(size=p)
    truth = generator.normal(size=p) * (generator.random(p) < 0.5)
    return x, x @ truth + 2 * generator.normal(size=n) + 5, generator


def fit(x, y, intercept, weights=None):
    design = np.column_stack([np.ones(len(y)), x]) if intercept else x
    return sm.WLS(y, design, weights=1.0 if weights is None else weights).fit()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_every_step_is_a_statsmodels_fit(route, intercept, weighted):
    x, y, generator = table()
    weights = generator.uniform(0.2, 3, len(y)) if weighted else None
    path = eliminate(system(route, x, y, numbers(8), intercept, weights=weights))
    left = list(range(8))
    for step in range(8 if not intercept else 9):
        expected = fit(x[:, left], y, intercept, weights)
        values = [path.coefficients[step], path.variances[step], path.tvalues[step]]
        own = [np.delete(value, left) for value in values]
        assert np.isnan(own).all()
        values = [value[left] for value in values]
        if intercept:
            ours = [path.intercepts, path.intercept_variances, path.intercept_tvalues]
            values = [np.insert(value, 0, other[step]) for value, other in zip(values, ours, strict=True)]
        theirs = [expected.params, expected.bse**2, expected.tvalues]
        for value, other in zip(values, theirs, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-9)
        np.testing.assert_allclose(path.rss[step], expected.ssr, rtol=1e-11)
        assert (path.size[step], path.df_resid[step]) == (len(left), expected.df_resid)
        np.testing.assert_allclose(path.inverse_diagonal[step, left] * expected.scale, values[1][intercept:], rtol=1e-9)
        if not left:
            break
        t = expected.tvalues[intercept:]
        weakest = int(np.abs(t).argmin())
        np.testing.assert_allclose(path.t[step], t[weakest], rtol=1e-9)
        np.testing.assert_allclose(path.F[step], t[weakest] ** 2, rtol=1e-9)
        np.testing.assert_allclose(path.p_value[step], expected.pvalues[intercept:][weakest], rtol=1e-8)
        assert path.order[step] == f"x{left.pop(weakest)}"
    assert path.df.tolist() == [1] * 8 + [0]
    assert np.isnan([path.t[-1], path.F[-1], path.p_value[-1]]).all()
    assert path.size.tolist() == list(range(8, -1, -1))


@pytest.mark.parametrize("route", ROUTES)
def test_the_empty_model_without_an_intercept(route):
    x, y, _ = table()
    path = eliminate(system(route, x, y, numbers(8), intercept=False))
    np.testing.assert_allclose(path.rss[-1], y @ y, rtol=1e-12)
    assert path.df_resid[-1] == len(y)
    assert path.intercepts[-1] == 0
    assert np.isnan(path.intercept_variance).all()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("p", [70, 150])
def test_long_paths_do_not_drift(route, p):
    x, y, _ = table(3 * p, p, seed=4)
    forced = ("x3", f"x{p - 1}")
    path = eliminate(system(route, x, y, numbers(p, forced)))
    left = list(range(p))
    for step in range(p - 1):
        design = np.column_stack([np.ones(len(y)), x[:, left]])
        b, rss = np.linalg.lstsq(design, y, rcond=None)[:2]
        variance = np.diagonal(np.linalg.inv(design.T @ design)) * rss / (len(y) - len(left) - 1)
        t = b / np.sqrt(variance)
        np.testing.assert_allclose(path.tvalues[step, left], t[1:], rtol=1e-6, atol=1e-7)
        if step < p - 2:
            free = [place for place in left if f"x{place}" not in forced]
            weakest = free[int(np.abs(path.tvalues[step, free]).argmin())]
            assert path.order[step] == f"x{weakest}"
            left.remove(weakest)
    assert path.size[-1] == 2
    assert {term.name for term in path.terms_left(len(path.size) - 1)} == set(forced)


SIZES = [1, 3, 1, 2, 4, 1, 2]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sizes", [SIZES, [2, 2, 2, 2]])
def test_groups_leave_by_the_p_value_of_their_f_test(route, intercept, sizes):
    p = sum(sizes)
    x, y, _ = table(90, p, seed=2)
    path = eliminate(system(route, x, y, grouped(sizes), intercept))
    starts = np.cumsum([0, *sizes])
    left = list(range(len(sizes)))
    for step in range(len(sizes)):
        place = np.concatenate([np.arange(starts[term], starts[term + 1]) for term in left])
        result = fit(x[:, place], y, intercept)
        np.testing.assert_allclose(path.coefficients[step, place], result.params[intercept:], rtol=1e-8)
        np.testing.assert_allclose(path.variances[step, place], result.bse[intercept:] ** 2, rtol=1e-8)
        np.testing.assert_allclose(path.rss[step], result.ssr, rtol=1e-10)
        assert path.df_resid[step] == result.df_resid
        tests = []
        for term in left:
            contrast = np.zeros((sizes[term], len(place) + intercept))
            own = np.flatnonzero((place >= starts[term]) & (place < starts[term + 1])) + intercept
            contrast[np.arange(sizes[term]), own] = 1
            tests.append(result.f_test(contrast))
        weakest = int(np.argmax([test.pvalue for test in tests]))
        np.testing.assert_allclose(path.F[step], tests[weakest].fvalue, rtol=1e-8)
        np.testing.assert_allclose(path.p_value[step], tests[weakest].pvalue, rtol=1e-7)
        term = left.pop(weakest)
        assert (path.order[step], path.df[step]) == (f"g{term}", sizes[term])
        assert np.isnan(path.t[step]) == (sizes[term] > 1)


def test_p_values_that_underflow_still_order_the_groups():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4000, 6))
    # All p values underflow to 0. F alone would drop g1 first: 3 columns share what one column of g2 has.
    y = x @ np.array([9.0, 5.0, 5.0, 5.0, 7.0, 9.0]) + generator.normal(size=4000)
    path = eliminate(system("gram", x, y, grouped([1, 3, 1, 1])))
    assert path.p_value[0] == 0
    f = [result / size for result, size in zip(_gains(x, y, [1, 3, 1, 1]), [1, 3, 1, 1], strict=True)]
    assert int(np.argmin(f)) == 1
    assert path.order[0] == "g2"


def _gains(x, y, sizes):
    starts, full = np.cumsum([0, *sizes]), fit(x, y, True).ssr
    return [fit(np.delete(x, np.arange(starts[g], starts[g + 1]), 1), y, True).ssr - full for g in range(len(sizes))]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sizes", [[1] * 8, [1, 3, 2, 1, 1]])
@pytest.mark.parametrize("weighted", [True, False])
def test_ridge_is_scikit_learn_at_every_step(route, intercept, sizes, weighted):
    x, y, generator = table()
    weights = generator.uniform(0.2, 3, len(y)) if weighted else None
    w = np.ones(len(y)) if weights is None else weights
    alpha = 12.5
    path = eliminate(system(route, x, y, grouped(sizes), intercept, ridge=alpha, weights=weights))
    starts = np.cumsum([0, *sizes])
    left = list(range(len(sizes)))
    while left:
        step = len(sizes) - len(left)
        place = np.concatenate([np.arange(starts[term], starts[term + 1]) for term in left])
        model = Ridge(alpha, fit_intercept=intercept, solver="cholesky").fit(x[:, place], y, sample_weight=w)
        centred = x[:, place] - (w @ x[:, place] / w.sum() if intercept else 0)
        a = centred.T @ (w[:, None] * centred)
        c = np.linalg.inv(a + alpha * np.eye(len(place)))
        rss = w @ (y - model.predict(x[:, place])) ** 2
        df = len(y) - intercept - np.trace(a @ c)
        v = c @ a @ c
        np.testing.assert_allclose(path.coefficients[step, place], model.coef_, rtol=1e-9)
        np.testing.assert_allclose(path.intercepts[step], model.intercept_ if intercept else 0, rtol=1e-9)
        np.testing.assert_allclose(path.rss[step], rss, rtol=1e-10)
        np.testing.assert_allclose(path.df_resid[step], df, rtol=1e-12)
        np.testing.assert_allclose(path.inverse_diagonal[step, place], np.diagonal(v), rtol=1e-8)
        if intercept:
            mean = w @ x[:, place] / w.sum()
            np.testing.assert_allclose(path.intercept_variance[step], 1 / w.sum() + mean @ v @ mean, rtol=1e-9)
        own = [np.flatnonzero((place >= starts[term]) & (place < starts[term + 1])) for term in left]
        b = model.coef_
        F = [b[g] @ np.linalg.solve(v[np.ix_(g, g)], b[g]) / len(g) / (rss / df) for g in own]
        p = [float(f_distribution.sf(f, len(g), df)) for f, g in zip(F, own, strict=True)]
        weakest = int(np.argmax(p))
        np.testing.assert_allclose(path.F[step], F[weakest], rtol=1e-8)
        assert path.order[step] == f"g{left.pop(weakest)}"


def exact_t(x, y):
    """t values and squared error of a fit with an intercept, in 60 digits."""
    mp.mp.dps = 60
    design = mp.matrix([[1, *map(float, row)] for row in x])
    target = mp.matrix([float(value) for value in y])
    inverse = (design.T * design) ** -1
    b = inverse * (design.T * target)
    rest = target - design * b
    s2 = (rest.T * rest)[0] / (len(y) - design.cols)
    rss = float(s2 * (len(y) - design.cols))
    return np.array([float(b[i] / mp.sqrt(s2 * inverse[i, i])) for i in range(design.cols)]), rss


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize(("route", "vif", "tolerance"), [("gram", 1e6, 3e-8), ("qr", 1e6, 1e-11), ("qr", 1e12, 1e-7)])
def test_collinear_columns_against_exact_arithmetic(route, vif, tolerance, offset):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(40, 6))
    x[:, 1] = x[:, 0] + x[:, 1] / np.sqrt(vif)
    x[:, 4] = x[:, 2] + x[:, 3] + x[:, 4] / np.sqrt(vif)
    y = x @ np.array([1.0, 1.0, 1.0, 1.0, 0.5, 3.0]) + generator.normal(size=40)
    y += 2 * np.sqrt(vif) * (x[:, 4] - x[:, 2] - x[:, 3])
    x = x + offset
    path = eliminate(system(route, x, y, numbers(6)))
    left = list(range(6))
    for step, name in enumerate(path.order):
        together = {0, 1} <= set(left) or {2, 3, 4} <= set(left)
        expected, rss = exact_t(x[:, left], y)
        # Once the columns that share a direction have left, so have the digits that they cost.
        limit = tolerance if together else 3e-13
        np.testing.assert_allclose(path.tvalues[step, left], expected[1:], rtol=limit, atol=limit)
        np.testing.assert_allclose(path.intercept_tvalues[step], expected[0], rtol=limit, atol=limit)
        np.testing.assert_allclose(path.rss[step], rss, rtol=limit)
        left.remove(int(name[1:]))


@pytest.mark.parametrize("route", ROUTES)
def test_many_removals_that_each_free_a_partner(route):
    """Every removal shortens rows of the root inverse by orders of magnitude: it has to be made anew on the way."""
    generator = np.random.default_rng(3)
    half = generator.normal(size=(200, 20))
    x = np.column_stack([half, half + generator.normal(size=half.shape) * 3e-4])
    y = half @ generator.normal(size=20) + generator.normal(size=200)
    path = eliminate(system(route, x, y, numbers(40)))
    left = list(range(40))
    for step, name in enumerate(path.order):
        if step > 20:
            design = np.column_stack([np.ones(200), x[:, left]])
            b, rss = np.linalg.lstsq(design, y, rcond=None)[:2]
            rank = [place for place in left if place % 20 + 20 in left and place % 20 in left]
            if not rank:
                t = b / np.sqrt(np.diagonal(np.linalg.inv(design.T @ design)) * rss / (200 - design.shape[1]))
                np.testing.assert_allclose(path.tvalues[step, left], t[1:], rtol=1e-11, atol=1e-12)
                np.testing.assert_allclose(path.rss[step], rss[0], rtol=1e-8 if route == "gram" else 1e-12)
        left.remove(int(name[1:]))


@pytest.mark.parametrize("route", ROUTES)
def test_an_exact_fit_is_exact_until_something_needed_goes(route):
    x, _, _ = table(30, 4, offset=0.0)
    y = 3 * x[:, 0] - 2 * x[:, 2] + 7
    full = system(route, x, y, numbers(4))
    path = eliminate(full)
    assert full.exact
    assert full.rss == 0
    assert path.rss[:3].tolist() == [0, 0, 0]
    assert path.rss[3] > 1
    assert path.order[:2] == ("x3", "x1")
    np.testing.assert_array_equal(path.tvalues[0], [np.inf, np.nan, -np.inf, np.nan])
    assert path.intercept_tvalues[0] == np.inf
    assert np.isnan(path.t[0])
    assert np.isinf(path.t[2])
    assert path.p_value[2] == 0
    assert np.isnan(path.p_value[0])
    assert np.isfinite(path.tvalues[3:, [0, 2]]).sum() == 1
    np.testing.assert_allclose(path.coefficients[0], [3, 0, -2, 0], atol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sizes", [[1] * 5, [2, 1, 2]])
def test_no_degrees_of_freedom(route, sizes):
    x, y, _ = table(6, 5, seed=8)
    path = eliminate(system(route, x, y, grouped(sizes)))
    assert path.df_resid[0] == 0
    assert path.rss[0] == 0
    assert np.isnan(path.tvalues[0]).all()
    assert np.isnan([path.t[0], path.F[0], path.p_value[0], path.variances[0, 0]]).all()
    gains = np.array(_gains(x, y, sizes))
    assert path.order[0] == f"g{int((gains / sizes).argmin())}"
    assert len(set(sizes)) == 1 or gains.argmin() != (gains / sizes).argmin()
    assert path.df_resid[1] == path.df[0]
    assert path.rss[1] > 0
    np.testing.assert_allclose(path.rss[-1], ((y - y.mean()) ** 2).sum(), rtol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
def test_a_constant_target(route):
    x, _, _ = table(30, 3)
    path = eliminate(system(route, x, np.full(30, 0.1), numbers(3)))
    assert path.rss.tolist() == [0, 0, 0, 0]
    assert np.isnan(path.tvalues).all()
    np.testing.assert_allclose(path.intercepts, 0.1, rtol=1e-14)
    assert np.isposinf(path.intercept_tvalues).all()
    assert path.order == ("x2", "x1", "x0")


@pytest.mark.parametrize("route", ROUTES)
def test_of_equal_statistics_the_later_goes_first(route):
    # A complete factorial: orthogonal columns; a, b, c have the same effect, d and e none at all.
    x = np.array(np.meshgrid(*[[-1.0, 1.0]] * 5)).reshape(5, -1).T
    noise = x[:, 0] * x[:, 1] * x[:, 2]
    path = eliminate(system(route, x, x[:, :3].sum(1) / 3 + noise, numbers(5)))
    assert path.order == ("x4", "x3", "x2", "x1", "x0")
    sizes = [1, 1, 2, 1]
    # x2 and x3 leave together or not at all: F is 1/2 of x0's.
    path = eliminate(system(route, x, x[:, :3].sum(1) / 3 + noise, grouped(sizes)))
    assert path.order[0] == "g3"
    # Nothing but x2 has an effect: every p value but one is 1.
    path = eliminate(system(route, x, x[:, 2] + noise, grouped([1, 1, 1, 2])))
    assert path.order == ("g3", "g1", "g0", "g2")


@pytest.mark.parametrize("route", ROUTES)
def test_forced_terms_stay(route):
    x, y, _ = table(60, 6)
    design = grouped([1, 2, 1, 2], forced=("g0", "g3"))
    path = eliminate(system(route, x, y, design))
    assert set(path.order) == {"g1", "g2"}
    assert path.size.tolist() == [4, 3, 2]
    assert np.isfinite(path.coefficients[:, [0, 4, 5]]).all()
    assert eliminate(system(route, x, y, numbers(6, {f"x{i}" for i in range(6)}))).order == ()


class White:
    """HC0 of any submodel, from the rows; degrees of freedom of their own, as clusters have them."""

    def __init__(self, x, y, kind="HC0"):
        self.x, self.y, self.kind = x, y, kind
        self.seen = []

    def result(self, current):
        return fit(self.x[:, current.indices], self.y, True).get_robustcov_results(self.kind)

    def __call__(self, current):
        result = self.result(current)
        np.testing.assert_allclose(current.coefficients, result.params[1:], rtol=1e-9)
        np.testing.assert_allclose(current.intercept, result.params[0], rtol=1e-9)
        np.testing.assert_allclose(current.inverse, result.normalized_cov_params[1:, 1:], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose([current.rss, current.df_resid], [result.ssr, result.df_resid], rtol=1e-10)
        return result.cov_params()[1:, 1:]

    def intercept_variance(self, current):
        return float(self.result(current).cov_params()[0, 0])

    def df(self, current):
        return 9.0


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sizes", [[1] * 7, [1, 2, 1, 3]])
def test_robust_errors_decide_the_order(route, sizes):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(80, 7)) + 1
    y = 0.3 * x.sum(1) + x[:, 0] ** 2 * generator.normal(size=80) * 3
    path = eliminate(system(route, x, y, grouped(sizes)), standard_errors=White(x, y))
    starts = np.cumsum([0, *sizes])
    left = list(range(len(sizes)))
    while left:
        step = len(sizes) - len(left)
        place = np.concatenate([np.arange(starts[term], starts[term + 1]) for term in left])
        result = fit(x[:, place], y, True).get_robustcov_results("HC0")
        np.testing.assert_allclose(path.tvalues[step, place], result.tvalues[1:], rtol=1e-8)
        np.testing.assert_allclose(path.intercept_tvalues[step], result.tvalues[0], rtol=1e-8)
        np.testing.assert_allclose(path.variances[step, place], result.bse[1:] ** 2, rtol=1e-8)
        tests = []
        for term in left:
            own = np.flatnonzero((place >= starts[term]) & (place < starts[term + 1])) + 1
            F = float(result.f_test(np.eye(len(place) + 1)[own]).fvalue)
            tests.append((float(f_distribution.sf(F, len(own), 9)), F))
        weakest = int(np.argmax([p for p, _ in tests]))
        np.testing.assert_allclose(path.F[step], tests[weakest][1], rtol=1e-7)
        np.testing.assert_allclose(path.p_value[step], tests[weakest][0], rtol=1e-6)
        assert path.df_t[step] == 9
        assert path.order[step] == f"g{left.pop(weakest)}"
    classical = eliminate(system(route, x, y, grouped(sizes)))
    assert classical.order != path.order


def test_robust_errors_of_the_wrong_shape_are_refused():
    x, y, _ = table(60, 3)

    class Wrong(White):
        def __call__(self, current):
            return np.ones(3)

    with pytest.raises(ValueError, match=r"covariance of shape \(3, 3\), got \(3,\)"):
        eliminate(system("gram", x, y, numbers(3)), standard_errors=Wrong(x, y))


def test_frequency_weights_are_repeated_rows():
    x, y, generator = table(60, 4)
    counts = generator.integers(1, 4, 60)
    ours = eliminate(system("gram", x, y, numbers(4), weights=counts.astype(float), rows=float(counts.sum())))
    again = eliminate(system("gram", np.repeat(x, counts, 0), np.repeat(y, counts), numbers(4)))
    assert ours.order == again.order
    np.testing.assert_allclose(ours.tvalues, again.tvalues, rtol=1e-10)
    np.testing.assert_allclose(ours.rss, again.rss, rtol=1e-11)


def test_many_are_each_on_their_own():
    systems = [system("gram", *table(50, 5, seed=seed)[:2], numbers(5)) for seed in range(3)]
    for one, other in zip(eliminate_many(systems), map(eliminate, systems), strict=True):
        assert one.order == other.order
        np.testing.assert_array_equal(one.tvalues, other.tvalues)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    exponents=st.lists(st.integers(-9, 9), min_size=15, max_size=15),
    route=st.sampled_from(ROUTES),
)
def test_units_and_order_of_rows_change_nothing(seed, sizes, exponents, route):
    p = sum(sizes)
    x, y, generator = table(40, p, seed=seed)
    path = eliminate(system(route, x, y, grouped(sizes)))
    assert (np.diff(path.rss) >= 0).all()
    units = 10.0 ** np.array(exponents[:p])
    order = generator.permutation(40)
    other = eliminate(system(route, (x * units + 3 * units)[order], -1e5 * y[order] + 7, grouped(sizes)))
    assert other.order == path.order
    np.testing.assert_allclose(-other.tvalues, path.tvalues, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(other.rss, 1e10 * path.rss, rtol=1e-8)
