"""Thinned curves keep what matters; the median over seeds does not flatter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.experiments.bootstrap import wilson_interval
from lsdr.report.numbers import number, wilson
from lsdr.report.thin import middle, thin


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_extremes_and_ends_survive(size, seed, buckets):
    y = np.random.default_rng(seed).standard_cauchy(size)
    x, kept = thin(np.arange(float(size)), y, buckets)
    assert len(x) <= max(4 * buckets, 1)
    assert (kept.max(), kept.min(), kept[0], kept[-1]) == (y.max(), y.min(), y[0], y[-1])
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(y[x.astype(int)], kept)


def test_gaps_do_not_break_thinning():
    y = np.full(10_000, np.nan)
    y[5_000] = 3.0
    assert np.nanmax(thin(np.arange(10_000.0), y)[1]) == 3.0


def test_median_of_seeds():
    x = np.arange(50.0)
    grid, values = middle([(x, x + shift) for shift in (0.0, 1.0, 10.0)])
    np.testing.assert_allclose(values, grid + 1)


def test_median_stops_where_most_seeds_have():
    long, short = np.arange(100.0), np.arange(40.0)
    grid, _ = middle([(long, long), (short, short), (short, short)])
    assert grid[-1] == 39.0
    grid, _ = middle([(long, long), (long, long), (short, short)])
    assert grid[-1] == 99.0
    grid, _ = middle([(long, long), (short, short)])
    assert grid[-1] == 39.0


def test_a_seed_without_values_counts_as_gone():
    x = np.arange(4.0)
    nothing = np.full(4, np.nan)
    assert len(middle([(x, x), (x, nothing), (x, nothing)])[0]) == 0
    assert len(middle([(x, nothing)])[0]) == 0


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (1, 5), (5, 5), (3, 40)])
def test_wilson_agrees_with_the_comparison(hits, trials):
    np.testing.assert_allclose(wilson(hits, trials), wilson_interval(hits, trials), atol=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3.0, "3"), (999.6, "1000"), (0.00012345, "0.000123"), (1e-7, "1.00×10⁻⁷"), (-2.5e9, "−2.50×10⁹"),
     (99999.0, "100 000"), (float("inf"), "∞"), (1234.0, "1230")],
)  # fmt: skip
def test_numbers_read_well(value, text):
    assert number(value).replace("\u202f", " ") == text
