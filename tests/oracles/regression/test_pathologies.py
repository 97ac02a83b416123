"""Tables that break a naive elimination: every one has a defined, explained result, as right as it can be."""

from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest

from lsdr.regression.backward_elimination import backward_elimination

from .published.exact import digits, fit, path, t_values


def reduce(table, **options):
    options = {"folds": 0, "rule": "bic"} | options
    return backward_elimination(table, "y", **options)


def noisy(n=60, p=5, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, p))
    table = pd.DataFrame(x, columns=[f"x{j}" for j in range(p)])
    return table.assign(y=1 + x @ np.arange(p) / p + generator.normal(size=n))


def exact_path(table, names):
    columns = {name: [Fraction(float(value)) for value in table[name]] for name in names}
    return path(columns, [Fraction(float(value)) for value in table.y])


def assert_digits(result, table, names, wanted):
    """Order and `wanted` digits of every t and coefficient at every step, against rational numbers."""
    for step, (left, removed, model) in zip(result.steps, exact_path(table, names), strict=True):
        assert step.terms == tuple(left)
        assert step.removed == removed
        for name, t, coefficient in zip(left, t_values(model)[1:], model.coefficients[1:], strict=True):
            assert digits(step.tvalues[name], t) > wanted
            assert digits(step.params[name], coefficient) > wanted


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("offset", [1e4, 1e8, -1e12])
def test_means_far_from_zero(offset, method):
    table = noisy()
    for j, name in enumerate(["x0", "x1", "x2", "x3", "x4", "y"]):
        table[name] += offset * (j + 1)
    assert_digits(reduce(table, method=method), table, ["x0", "x1", "x2", "x3", "x4"], 10)


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("exponents", [(-100, -30, 0, 30, 100, 0), (-12, -12, -12, -12, -12, -12), (8, 8, 8, 8, 8, -8)])
def test_tiny_and_mixed_scales(exponents, method):
    table = noisy()
    for name, exponent in zip(["x0", "x1", "x2", "x3", "x4", "y"], exponents, strict=True):
        table[name] *= 10.0**exponent
    assert_digits(reduce(table, method=method), table, ["x0", "x1", "x2", "x3", "x4"], 10)


@pytest.mark.parametrize(("spread", "method", "wanted"), [(1e-2, "gram", 9), (1e-5, "auto", 8), (1e-6, "auto", 7)])
def test_collinear_columns(spread, method, wanted):
    table = noisy()
    table["x1"] = table.x0 + spread * table.x1
    result = reduce(table, method=method)
    assert result.method == {"gram": "gram", "auto": "qr"}[method]
    assert_digits(result, table, ["x0", "x1", "x2", "x3", "x4"], wanted)


@pytest.mark.parametrize("spread", [1e-7, 1e-11])
def test_auto_keeps_what_qr_keeps(spread):
    table = noisy(n=300)
    table["x1"] = table.x0 + spread * table.x1
    result = reduce(table)
    assert not result.aliased
    assert_digits(result, table, ["x0", "x1", "x2", "x3", "x4"], 2)


@pytest.mark.parametrize("method", ["auto", "gram", "qr"])
@pytest.mark.parametrize(("name", "exponent"), [("x0", -200), ("x0", 200), ("y", -200), ("y", 200), ("x0", -310)])
def test_scales_whose_squares_are_no_numbers_are_refused(name, exponent, method):
    table = noisy()
    table[name] *= 10.0**exponent
    with pytest.raises(ValueError, match=f"({name}|target).*power of ten"):
        reduce(table, method=method)


def test_stream_that_turns_collinear_is_read_again_or_says_how_many_digits_are_left():
    table = noisy(n=6000, p=3)
    early = np.arange(len(table)) < 3000
    # Harmless and tiny at first; large, and equal but for a millionth, later.
    table["x1"] = np.where(early, 1e-6 * table.x1, table.x0 + 1e-6 * table.x1)
    table["x0"] = np.where(early, 1e-6 * table.x0, table.x0)

    def batches():
        return (table.iloc[start : start + 500] for start in range(0, len(table), 500))

    again = reduce(batches)
    assert again.method == "qr"
    assert "second time" in again.reason
    rows = [[Fraction(1), *(Fraction(value) for value in row)] for row in table[["x0", "x1", "x2"]].to_numpy().tolist()]
    exact = fit(rows, [Fraction(value) for value in table.y])
    assert min(digits(a, b) for a, b in zip(again.steps[0].tvalues, t_values(exact), strict=True)) > 7
    once = reduce(batches())
    assert once.method == "gram"
    assert any("only once" in note and 'method="qr"' in note for note in once.notes)
    asked = reduce(batches(), method="qr")
    assert not any("only once" in note for note in asked.notes)
    assert [step.removed for step in asked.steps] == [step.removed for step in again.steps]
    np.testing.assert_allclose(asked.steps[0].tvalues, again.steps[0].tvalues, rtol=1e-7)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_float32_is_taken_as_it_is(method):
    table = noisy().astype(np.float32)
    result = reduce(table, method=method)
    assert_digits(result, table.astype(np.float64), ["x0", "x1", "x2", "x3", "x4"], 10)


@pytest.mark.parametrize("method", ["auto", "gram", "qr"])
def test_aliased_constant_and_duplicated_columns_never_enter(method):
    table = noisy()
    table.insert(5, "twice", 2 * table.x0)
    table.insert(6, "sum", table.x1 - table.x2 + 3)
    table.insert(7, "one", 1.0)
    table.insert(8, "same", table.x3)
    result = reduce(table, method=method)
    assert {gone.column for gone in result.aliased} == {"twice", "sum", "one", "same"}
    reasons = {gone.column: gone.reason for gone in result.aliased}
    assert "constant" in reasons["one"]
    assert "x3" in reasons["same"]
    assert result.steps[0].terms == ("x0", "x1", "x2", "x3", "x4")
    assert_digits(result, table, ["x0", "x1", "x2", "x3", "x4"], 10)


def test_forced_columns_win_over_their_aliases():
    table = noisy()
    table.insert(5, "twice", 2 * table.x0)
    result = reduce(table, forced=["twice"])
    assert [gone.column for gone in result.aliased] == ["x0"]
    assert all("twice" in step.terms for step in result.steps)


def test_a_constant_near_1e8_is_constant():
    table = noisy().assign(c=123456789.1)
    assert [gone.column for gone in reduce(table).aliased] == ["c"]


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_more_columns_than_rows(method):
    table = noisy(n=6, p=9)
    result = reduce(table, method=method)
    # Six rows carry an intercept and five columns, with no degrees of freedom left: the last four go first.
    assert len(result.aliased) == 4
    assert {gone.column for gone in result.aliased} == {"x5", "x6", "x7", "x8"}
    full = result.steps[0]
    assert full.size == 5
    assert full.df_resid == 0
    assert np.isnan(full.tvalues).all()
    assert result.notes
    names = ["x0", "x1", "x2", "x3", "x4"]
    for step, (left, removed, model) in zip(result.steps, exact_path(table, names), strict=True):
        assert step.removed == removed
        if step.df_resid > 0:
            for name, t in zip(left, t_values(model)[1:], strict=True):
                assert digits(step.tvalues[name], t) > 9


@pytest.mark.parametrize("method", ["auto", "gram", "qr"])
def test_exact_fit(method):
    table = noisy()
    table["y"] = 3 + 2 * table.x1 - table.x4
    result = reduce(table, method=method)
    full = result.steps[0]
    assert full.rss == 0
    np.testing.assert_allclose(full.params, [3, 0, 2, 0, 0, -1], atol=1e-13)
    assert np.isinf(full.tvalues[["x1", "x4"]]).all()
    assert full.tvalues["x4"] < 0
    assert {step.removed for step in result.steps[:3]} == {"x0", "x2", "x3"}
    assert result.steps[3].rss == 0
    assert result.steps[4].rss > 0
    assert result.notes
    assert set(result.chosen.features) == {"x1", "x4"}


@pytest.mark.parametrize("method", ["auto", "gram", "qr"])
def test_constant_target(method):
    result = reduce(noisy().assign(y=7.5), method=method)
    assert result.chosen.size == 0
    for step in result.steps:
        assert step.rss == 0
        np.testing.assert_allclose(step.params, [7.5] + [0] * step.size, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_rows(n):
    result = reduce(noisy(n=n, p=3))
    assert result.n == n
    assert result.steps[0].size == n - 1
    assert result.steps[0].rss == 0
    assert result.steps[-1].size == 0
    assert result.notes or n == 1


def test_one_row_without_intercept():
    result = reduce(pd.DataFrame({"x0": [2.0], "x1": [3.0], "y": [4.0]}), intercept=False)
    assert result.steps[0].terms == ("x0",)
    assert result.steps[0].params["x0"] == pytest.approx(2.0)


def test_default_folds_with_few_rows_are_explained():
    result = backward_elimination(noisy(n=4, p=2), "y")
    assert result.steps[0].size == 2
    assert np.isfinite(result.chosen.size)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no row"):
        reduce(noisy().iloc[:0])
    with pytest.raises(ValueError, match="no row without missing values"):
        reduce(noisy().assign(x0=np.nan))


def test_missing_values_leave_one_set_of_rows_for_all_models():
    table = noisy(n=200)
    holes = table.copy()
    holes.loc[3, "x0"] = holes.loc[10, "x4"] = holes.loc[77, "y"] = np.nan
    kept = table.drop([3, 10, 77])
    for frame in (holes, pl.from_pandas(holes), pl.from_pandas(holes).with_columns(pl.all().fill_nan(None))):
        result = reduce(frame)
        assert result.missing == 3
        assert result.n == 197
        assert_digits(result, kept, ["x0", "x1", "x2", "x3", "x4"], 10)
    with pytest.raises(ValueError, match=r"row 4 .* missing value .*x0"):
        reduce(holes, missing="raise")


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_with_row_and_column(value):
    table = noisy()
    table.loc[17, "x3"] = value
    with pytest.raises(ValueError, match=r"(?s)(?=.*x3)(?=.*1[78])"):
        reduce(table)
