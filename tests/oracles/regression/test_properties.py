"""What must hold for every table: order and values do not depend on units, rows' order, batches, or how one weighs."""

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsdr.regression.backward_elimination import backward_elimination

BRIEF = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**31)


@st.composite
def tables(draw):
    """A table of 12 to 80 rows and 1 to 6 columns, correlated, with a target."""
    generator = np.random.default_rng(draw(seeds))
    p = draw(st.integers(1, 6))
    n = draw(st.integers(p + 6, 80))
    x = generator.normal(size=(n, p)) @ (np.eye(p) + draw(st.floats(0, 3)) * generator.normal(size=(p, p)))
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(p)]).assign(
        y=x @ generator.normal(size=p) + draw(st.floats(0.1, 10)) * generator.normal(size=n)
    )


def names(table):
    return [name for name in table if name != "y"]


def reduce(source, table, **options):
    return backward_elimination(source, "y", **{"features": names(table), "folds": 0, "rule": "bic"} | options)


def same(first, second, rtol=1e-8):
    """The same path: order, t values, RSS."""
    assert [step.removed for step in first.steps] == [step.removed for step in second.steps]
    for one, other in zip(first.steps, second.steps, strict=True):
        np.testing.assert_allclose(one.tvalues, other.tvalues, rtol=rtol, atol=1e-9)
        np.testing.assert_allclose(one.rss, other.rss, rtol=rtol)


@BRIEF
@given(tables(), st.data())
def test_units_do_not_matter(table, data):
    changed = table.copy()
    for name in names(table):
        changed[name] = table[name] * data.draw(st.floats(1e-6, 1e6)) + data.draw(st.floats(-1e3, 1e3))
    first, second = reduce(table, table), reduce(changed, table)
    assert [step.removed for step in first.steps] == [step.removed for step in second.steps]
    for one, other in zip(first.steps, second.steps, strict=True):
        np.testing.assert_allclose(one.tvalues.iloc[1:], other.tvalues.iloc[1:], rtol=1e-3, atol=1e-3)


@BRIEF
@given(tables(), seeds)
def test_order_of_rows_does_not_matter(table, seed):
    same(reduce(table, table), reduce(table.sample(frac=1, random_state=seed), table))


@BRIEF
@given(tables(), st.integers(1, 40))
def test_batches_do_not_matter(table, size):
    def batches():
        return (table.iloc[start : start + size] for start in range(0, len(table), size))

    same(reduce(table, table), reduce(batches, table))


@BRIEF
@given(tables())
def test_routes_agree(table):
    same(reduce(table, table, method="gram"), reduce(table, table, method="qr"), rtol=1e-6)


@BRIEF
@given(tables(), seeds)
def test_frequency_weights_are_repetition(table, seed):
    counts = np.random.default_rng(seed).integers(1, 4, len(table))
    weighted = reduce(table.assign(w=counts), table, weights="w", weight_kind="frequency")
    same(weighted, reduce(table.loc[table.index.repeat(counts)].reset_index(drop=True), table))


@BRIEF
@given(tables(), st.floats(1e-3, 1e3))
def test_a_common_analytic_weight_changes_no_t(table, weight):
    first = reduce(table, table)
    second = reduce(table.assign(w=weight), table, weights="w")
    assert [step.removed for step in first.steps] == [step.removed for step in second.steps]
    for one, other in zip(first.steps, second.steps, strict=True):
        np.testing.assert_allclose(one.tvalues, other.tvalues, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(one.rss * weight, other.rss, rtol=1e-8)


@BRIEF
@given(tables())
def test_training_error_rises_and_the_weakest_goes(table):
    result = reduce(table, table)
    rss = np.array([step.rss for step in result.steps])
    assert (np.diff(rss) >= -1e-12 * rss[-1]).all()
    for step, following in zip(result.steps, result.steps[1:], strict=False):
        sizes = step.tvalues.drop("Intercept").abs()
        assert sizes[step.removed] <= sizes.min() * (1 + 1e-9)
        # F-to-remove is what the removal costs.
        cost = (following.rss - step.rss) * step.df_resid / step.rss
        np.testing.assert_allclose(cost, step.F, rtol=1e-5, atol=1e-7)
