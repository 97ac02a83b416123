"""Systems of both routes against numpy, and what they refuse."""

import numpy as np
import pytest

from lsdr.moments import Moments
from lsdr.regression.columns import Term
from lsdr.regression.system import system_of_factor, system_of_moments

ROUTES = ["gram", "qr"]
COLUMNS = tuple((f"x{i}", "") for i in range(5))
TERMS = tuple(Term(name, ((name, level),)) for name, level in COLUMNS)


def build(route, x, y, *, terms=TERMS, rows=None, intercept=True, ridge=0.0, weights=None, columns=COLUMNS):
    z = np.column_stack([x, y])
    w = np.ones(len(y)) if weights is None else weights
    rows = len(y) if rows is None else rows
    if route == "gram":
        moments = Moments.of(z) if weights is None else Moments.of(z, weights=w)
        return system_of_moments(moments, columns, terms, rows=rows, intercept=intercept, ridge=ridge)
    shift = z[:3].mean(0) if intercept else np.zeros(z.shape[1])
    z = np.column_stack([np.ones(len(y)), z - shift]) if intercept else z
    factor = np.linalg.qr(np.sqrt(w)[:, None] * z, mode="r")
    return system_of_factor(
        factor, columns, terms, rows=rows, weight=float(w.sum()), intercept=intercept, shift=shift, ridge=ridge
    )


def table(seed=0, n=50):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 5)) * [1, 1e-3, 1e4, 1, 1] + [0, 1, 1e5, -3, 0]
    return x, x @ [1, 0, 1e-4, 0.5, 0] + generator.normal(size=n), generator


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_everything_a_system_says(route, intercept, weighted, ridge):
    x, y, generator = table()
    weights = generator.uniform(0.1, 2, 50) if weighted else None
    w = np.ones(50) if weights is None else weights
    found = build(route, x, y, intercept=intercept, weights=weights, ridge=ridge)
    mean, mean_y = (w @ x / w.sum(), w @ y / w.sum()) if intercept else (np.zeros(5), 0.0)
    xc, yc = x - mean, y - mean_y
    a = xc.T @ (w[:, None] * xc)
    tss = w @ yc**2
    np.testing.assert_allclose(found.mean, mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(found.mean_y, mean_y, rtol=1e-13)
    np.testing.assert_allclose(found.scale, np.sqrt(np.diagonal(a)), rtol=1e-12)
    np.testing.assert_allclose(found.unit, np.sqrt(np.diagonal(a) + ridge), rtol=1e-12)
    np.testing.assert_allclose([found.tss, found.scale_y**2, found.weight], [tss, tss, w.sum()], rtol=1e-12)
    unit = found.unit
    c = np.linalg.inv(a / unit / unit[:, None] + np.diag(ridge / unit**2))
    b = c @ (xc.T @ (w * yc) / unit) / np.sqrt(tss)
    np.testing.assert_allclose(found.inverse, c, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.b, b, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.rss, w @ (yc - xc @ (found.b / unit * np.sqrt(tss))) ** 2, rtol=1e-9)
    np.testing.assert_allclose(found.objective, found.rss / tss + found.penalty @ found.b**2, rtol=1e-9)
    np.testing.assert_allclose(found.vif, np.diagonal(c).max(), rtol=1e-6)
    np.testing.assert_allclose(np.tril(found.root, -1), 0, atol=0)
    assert (np.diagonal(found.root) > 0).all()
    np.testing.assert_allclose(found.root.T @ found.projection, xc.T @ (w * yc) / unit / np.sqrt(tss), atol=1e-12)
    assert found.columns == COLUMNS
    assert found.terms == TERMS
    assert (found.rows, found.intercept, found.ridge, found.method) == (50, intercept, ridge, route)
    assert not found.aliased
    assert not found.doubtful
    assert not found.exact


@pytest.mark.parametrize("route", ROUTES)
def test_terms_choose_the_columns_and_their_order(route):
    x, y, _ = table()
    terms = (Term("x4", (COLUMNS[4],)), Term("pair", (COLUMNS[2], COLUMNS[0])))
    found = build(route, x, y, terms=terms)
    alone = build(route, x[:, [4, 2, 0]], y, terms=terms, columns=tuple(COLUMNS[i] for i in (4, 2, 0)))
    assert found.columns == (COLUMNS[4], COLUMNS[2], COLUMNS[0])
    np.testing.assert_allclose(found.root, alone.root, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.b, alone.b, rtol=1e-9)
    np.testing.assert_allclose(found.rss, alone.rss, rtol=1e-11)
    np.testing.assert_allclose(found.mean, alone.mean, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("route", ROUTES)
def test_no_terms(route):
    x, y, _ = table()
    found = build(route, x, y, terms=())
    assert found.columns == ()
    np.testing.assert_allclose(found.rss, ((y - y.mean()) ** 2).sum(), rtol=1e-12)
    assert found.vif == 1


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("exponent", [-300, -180, 180, 300])
@pytest.mark.parametrize("column", [1, 5])
def test_scales_beyond_the_squares_of_floats_are_refused(route, exponent, column):
    x, y, _ = table()
    z = np.column_stack([x, y]) * [1, 1e3, 1e-4, 1, 1, 1]
    z[:, column] *= 10.0**exponent
    if route == "gram" and exponent > 0:
        with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match="power of ten"):
            build(route, z[:, :5], z[:, 5])
    elif route == "qr":
        with pytest.raises(ValueError, match=r"(x1|the target) vary by about [12]e.*: multiply it by a power of ten"):
            build(route, z[:, :5], z[:, 5])
    else:  # the squares are gone before the system sees them
        found = build(route, z[:, :5], z[:, 5])
        assert found.tss == 0 or found.aliased[0].reason == "constant"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("exponent", [-100, 100])
def test_scales_within_them_are_not(route, exponent):
    x, y, _ = table()
    found = build(route, x * 10.0**exponent, y)
    np.testing.assert_allclose(found.b, build(route, x, y).b, rtol=1e-9)
    found = build(route, x, y * 10.0**exponent)
    np.testing.assert_allclose(found.b, build(route, x, y).b, rtol=1e-9)


def test_digits_follow_collinearity_and_fit():
    x, y, generator = table()
    well = build("gram", x, y)
    assert well.digits > 13
    x[:, 4] = x[:, 0] + 1e-3 * generator.normal(size=50)
    assert 8 < build("gram", x, y).digits < 10
    assert build("qr", x, y).digits > 12
    x, y, generator = table()
    y = x @ [1, 0, 1e-4, 0.5, 0] + 1e-5 * generator.normal(size=50)
    assert 4 < build("gram", x, y).digits < 7
    assert build("gram", x, np.ones(50)).digits > 13


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_refused(route):
    x, y, _ = table()
    with pytest.raises(ValueError, match="no rows to fit"):
        build(route, x, y, rows=0)
    with pytest.raises(ValueError, match="ridge must be at least 0 and finite, got -1"):
        build(route, x, y, ridge=-1.0)


def test_factors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"R must have shape \(7, 7\)"):
        system_of_factor(np.eye(6), COLUMNS, TERMS, rows=9, weight=9, intercept=True, shift=np.zeros(6))
    with pytest.raises(ValueError, match="shift must be 0"):
        system_of_factor(np.eye(6), COLUMNS, TERMS, rows=9, weight=9, intercept=False, shift=np.ones(6))


@pytest.mark.parametrize("route", ROUTES)
def test_a_penalty_leaves_nothing_aliased(route):
    x, y, _ = table()
    x[:, 3] = x[:, 0]
    found = build(route, x, y, ridge=1.0)
    assert not found.aliased
    np.testing.assert_allclose(found.b[0], found.b[3], rtol=1e-9)
    found = build(route, x[:4], y[:4], ridge=1.0) if route == "gram" else found
    assert len(found.columns) == 5
