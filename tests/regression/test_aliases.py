"""Columns that never enter the model, by both routes."""

import numpy as np
import pytest

from lsdr.moments import Moments
from lsdr.regression.columns import Term
from lsdr.regression.system import system_of_factor, system_of_moments

ROUTES = ["gram", "qr"]


def system(route, x, y, names=None, forced=(), intercept=True, rows=None):
    names = names or [f"x{i}" for i in range(x.shape[1])]
    columns = tuple((name, "") for name in names)
    terms = tuple(Term(name, ((name, ""),), name in forced) for name in names)
    z = np.column_stack([x, y])
    rows = len(y) if rows is None else rows
    if route == "gram":
        return system_of_moments(Moments.of(z), columns, terms, rows=rows, intercept=intercept)
    shift = z[:2].mean(0) if intercept else np.zeros(z.shape[1])
    z = np.column_stack([np.ones(len(y)), z - shift]) if intercept else z
    factor = np.linalg.qr(np.vstack([z, np.zeros((z.shape[1], z.shape[1]))]), mode="r")
    return system_of_factor(factor, columns, terms, rows=rows, weight=float(len(y)), intercept=intercept, shift=shift)


def table(n=60, p=5, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, p)) + 3, generator.normal(size=n)


def names(columns):
    return [term for term, _ in columns]


def reasons(found):
    return {aliased.column[0]: aliased.reason for aliased in found.aliased}


@pytest.mark.parametrize("route", ROUTES)
def test_constants_duplicates_and_combinations_leave_with_their_reasons(route):
    x, y = table()
    x[:, 1] = 0.1
    x = np.column_stack([x, x[:, 2], 2 * x[:, 2] - 1, x[:, 0] - 0.5 * x[:, 3] + 4, -x[:, 4], np.full(60, 1e9)])
    found = system(route, x, y)
    assert reasons(found) == {
        "x1": "constant",
        "x5": "duplicate of x2",
        "x6": "aliased",
        "x7": "aliased",
        "x8": "aliased",
        "x9": "constant",
    }
    assert [names(aliased.of) for aliased in found.aliased] == [[], ["x2"], ["x2"], ["x0", "x3"], ["x4"], []]
    assert names(found.columns) == ["x0", "x2", "x3", "x4"]
    assert [term.name for term in found.terms] == ["x0", "x2", "x3", "x4"]
    b, *_ = np.linalg.lstsq(np.column_stack([np.ones(60), x[:, [0, 2, 3, 4]]]), y, rcond=None)
    np.testing.assert_allclose(found.b * found.scale_y / found.scale, b[1:], rtol=1e-10)
    assert found.doubtful == (route == "gram")


@pytest.mark.parametrize("route", ROUTES)
def test_forced_terms_stay_and_the_last_column_goes_otherwise(route):
    x, y = table()
    x[:, 4] = x[:, 0] + x[:, 2]
    assert names(system(route, x, y).columns) == ["x0", "x1", "x2", "x3"]
    found = system(route, x, y, forced=("x4",))
    assert names(found.columns) == ["x0", "x1", "x3", "x4"]
    assert names(found.aliased[0].of) == ["x0", "x4"]
    found = system(route, x, y, forced=("x4", "x2", "x0"))
    assert names(found.columns) == ["x0", "x1", "x2", "x3"]


@pytest.mark.parametrize("route", ROUTES)
def test_no_more_columns_than_rows_can_tell_apart(route):
    x, y = table(n=6, p=9)
    found = system(route, x, y)
    assert names(found.columns) == [f"x{i}" for i in range(5)]
    assert set(reasons(found).values()) == {"aliased"}
    assert found.rss == 0
    assert names(system(route, x, y, intercept=False).columns) == [f"x{i}" for i in range(6)]
    found = system(route, x, y, forced=("x8", "x7"))
    assert names(found.columns) == ["x0", "x1", "x2", "x7", "x8"]


@pytest.mark.parametrize("route", ROUTES)
def test_many_columns_and_few_rows(route):
    x, y = table(n=30, p=200)
    found = system(route, x, y)
    assert names(found.columns) == [f"x{i}" for i in range(29)]
    assert len(found.aliased) == 171


@pytest.mark.parametrize("route", ROUTES)
def test_one_row(route):
    found = system(route, np.array([[1.0, 2.0]]), np.array([3.0]))
    assert found.columns == ()
    assert set(reasons(found).values()) == {"constant"}
    assert (found.rss, found.tss, found.mean_y) == (0, 0, 3)


@pytest.mark.parametrize("route", ROUTES)
def test_without_an_intercept_a_constant_is_a_column(route):
    x, y = table(p=3)
    x[:, 1], x[:, 2] = 5, 0
    found = system(route, x, y, intercept=False)
    assert names(found.columns) == ["x0", "x1"]
    assert reasons(found) == {"x2": "constant"}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("offset", [1e3, 1e8, 1e12])
def test_sums_of_columns_far_from_zero_are_aliased_to_their_rounding(route, offset):
    x, y = table(p=3)
    x = x + offset
    x[:, 2] = x[:, 0] + x[:, 1]
    assert names(system(route, x, y).columns) == ["x0", "x1"]
    x[:, 2] = x[:, 0] - offset
    assert names(system(route, x, y).columns) == ["x0", "x1"]
    swapped = x[:, [2, 1, 0]]
    assert names(system(route, swapped, y).columns) == ["x0", "x1"]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_factor_keeps_what_it_can_tell_apart(offset):
    generator = np.random.default_rng(0)
    x, y = table(p=3)
    size = 1e-6 if offset == 0 else 1e-5
    x[:, 2] = x[:, 0] + size * generator.normal(size=60)
    x = x + offset
    assert len(system("qr", x, y).columns) == 3
    assert system("qr", x, y).vif > 1e9
    assert not system("qr", x, y).doubtful
    if offset == 0:
        # Cross-products cannot; they say so, and do not call a near duplicate a duplicate.
        found = system("gram", x, y)
        assert found.doubtful
        assert reasons(found) == {"x2": "aliased"}


def test_a_polynomial_of_degree_ten_is_kept_by_the_factor():
    t = np.linspace(-9, -3, 82)
    x = np.column_stack([t**k for k in range(1, 11)])
    assert len(system("qr", x, np.sin(t)).columns) == 10
    assert system("gram", x, np.sin(t)).doubtful


@pytest.mark.parametrize("route", ROUTES)
def test_a_factor_keeps_the_rest_of_its_levels(route):
    generator = np.random.default_rng(0)
    first = generator.integers(0, 3, 60)
    second = np.where(first == 2, 2, generator.integers(0, 2, 60))  # its level 2 is first's level 2
    dummies = np.column_stack([first == 1, first == 2, second == 1, second == 2]).astype(float)
    columns = (("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"))
    terms = (Term("a", columns[:2]), Term("b", columns[2:]))
    z = np.column_stack([dummies, generator.normal(size=60)])
    if route == "gram":
        found = system_of_moments(Moments.of(z), columns, terms, rows=60, intercept=True)
    else:
        factor = np.linalg.qr(np.column_stack([np.ones(60), z]), mode="r")
        found = system_of_factor(factor, columns, terms, rows=60, weight=60, intercept=True, shift=np.zeros(5))
    assert [term.columns for term in found.terms] == [columns[:2], columns[2:3]]
    assert reasons(found) == {"b": "duplicate of a[2]"}


def test_a_combination_of_columns_that_are_nearly_collinear():
    t = np.linspace(-9, -3, 82)
    powers = np.column_stack([t**k for k in range(10, 0, -1)])
    scaled = (powers - powers.mean(0)) / powers.std(0)
    x = np.column_stack([scaled, scaled.sum(1)])
    # Priority runs against the order of the columns, so that the factor is not triangular in it.
    forced = [f"x{i}" for i in range(5, 10)]
    found = system("qr", x, np.sin(t), forced=forced)
    assert names(found.columns) == [f"x{i}" for i in range(10)]
    assert reasons(found) == {"x10": "aliased"}


@pytest.mark.parametrize("route", ROUTES)
def test_weights_that_count_few_rows_allow_few_columns(route):
    x, y = table()
    assert names(system(route, x, y, rows=4).columns) == ["x0", "x1", "x2"]


def test_constants_to_rounding():
    """What merging, or a shift far from the constant, leaves of it."""
    columns = (("a", ""), ("b", ""))
    terms = tuple(Term(name, ((name, ""),)) for name, _ in columns)
    cross = np.array([[50 * 1e-12**2, 0.0, 0.0], [0.0, 50.0, 10.0], [0.0, 10.0, 60.0]])
    moments = Moments.given(50, np.array([1e5, 0.0, 0.0]), cross)
    found = system_of_moments(moments, columns, terms, rows=50, intercept=True)
    assert reasons(found) == {"a": "constant"}
    cross[0, 0] = 50 * 1e-8**2
    moments = Moments.given(50, np.array([1e5, 0.0, 0.0]), cross)
    assert not system_of_moments(moments, columns, terms, rows=50, intercept=True).aliased
    generator = np.random.default_rng(0)
    z = np.column_stack([np.ones(50), np.full(50, 0.1), generator.normal(size=(50, 2))])
    factor = np.linalg.qr(z, mode="r")
    assert np.abs(factor[1:, 1]).max() > 0
    found = system_of_factor(factor, columns, terms, rows=50, weight=50, intercept=True, shift=np.zeros(3))
    assert reasons(found) == {"a": "constant"}
