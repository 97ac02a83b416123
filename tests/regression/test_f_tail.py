"""Tails of the F distribution in 25 digits, by mpmath."""

import mpmath as mp
import numpy as np
import pytest
from scipy.stats import f as f_distribution

from lsdr.regression.f_tail import log_f_tail


@pytest.mark.parametrize("df_resid", [1.0, 3.0, 40.0, 997.5, 1e4])
@pytest.mark.parametrize("df", [1, 2, 3, 7, 30, 400])
def test_logarithms_where_floats_underflow_and_where_they_do_not(df, df_resid):
    mp.mp.dps = 25
    statistics = np.array([0.5, 1.0, 3.0, 30.0, 1e3, 1e5, 1e8, 1e300])
    found = log_f_tail(statistics, np.full(len(statistics), float(df)), df_resid)
    for statistic, value in zip(statistics, found, strict=True):
        a, b = mp.mpf(df_resid) / 2, mp.mpf(df) / 2
        x = a / (a + b * mp.mpf(statistic))
        if value < -600:
            front = a * mp.log(x) + b * mp.log1p(-x) - mp.log(a)
            front -= mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
            term, series, n = mp.mpf(1), mp.mpf(1), 0
            while term > 1e-16 * series:  # 2F1(a + b, 1; a + 1; x)
                term *= (a + b + n) / (a + 1 + n) * x
                series, n = series + term, n + 1
            expected = float(front + mp.log(series))
        else:
            expected = f_distribution.logsf(statistic, df, df_resid)
        assert value == pytest.approx(expected, rel=1e-10)


def test_order_is_kept_across_the_border():
    statistics = np.linspace(50, 8000, 4000)
    logs = log_f_tail(statistics, np.full(4000, 2.0), 500.0)
    assert (np.diff(logs) < 0).all()
    assert logs.min() < -700  # beyond the smallest float


def test_extremes():
    logs = log_f_tail(np.array([0.0, np.inf]), np.array([2.0, 2.0]), 10.0)
    assert logs[0] == 0
    assert logs[1] == -np.inf
