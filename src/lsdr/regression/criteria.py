"""Criteria of a least-squares fit by its residual sum of squares: AIC, BIC, Mallows' Cp, adjusted R^2.

All work on one number or on a whole path of them (arrays of one shape broadcast).
"""

import numpy as np
from numpy.typing import NDArray

# One number, or a whole path of them. (NumPy's own ArrayLike does not admit a float at run time.)
Numbers = float | int | np.floating | NDArray[np.floating] | NDArray[np.integer]
Values = np.float64 | NDArray[np.float64]


def aic(rss: Numbers, rows: float | int, parameters: Numbers) -> Values:
    r"""Akaike's criterion with the constants of R's `extractAIC`, so that a path may be laid beside R's `step`.

    .. math:: n \log(\mathrm{RSS}/n) + 2 q

    Differences between models are those of R's `AIC` and of statsmodels; the level is lower by n (1 + log 2 pi) + 2
    than R's `AIC`. -inf for an exact fit, nan where there is no model. O(1).

    Source: Akaike, "A new look at the statistical model identification", IEEE Trans. Automatic Control 1974.

    Args:
        rss: Residual sums of squares, weighted where there are weights.
        rows: Number of rows n (the sum of the weights where they are frequencies).
        parameters: Estimated coefficients q, the intercept counted.

    Example:
        >>> f"{aic(47.86364, 13, 5):.2f}"  # R: step(lm(y ~ ., hald)) prints 26.94
        '26.94'
    """
    return _deviance(rss, rows) + 2 * np.asarray(parameters, dtype=np.float64)


def bic(rss: Numbers, rows: float | int, parameters: Numbers) -> Values:
    r"""Schwarz' criterion with the constants of R's `extractAIC(fit, k = log(n))`; arguments as for `aic`.

    .. math:: n \log(\mathrm{RSS}/n) + q \log n

    Source: Schwarz, "Estimating the dimension of a model", The Annals of Statistics 1978.

    Example:
        >>> f"{bic(47.86364, 13, 5):.2f}"
        '29.77'
    """
    penalty = np.log(rows) if rows > 0 else np.nan
    return _deviance(rss, rows) + penalty * np.asarray(parameters, dtype=np.float64)


def mallows_cp(rss: Numbers, rows: float | int, parameters: Numbers, variance: float | int) -> Values:
    r"""Mallows' Cp; near the number of parameters q for a model without bias.

    .. math:: \mathrm{RSS} / s^2 - n + 2 q

    nan where the variance of the full model is 0 or undefined (exact fits, no degrees of freedom left).

    Source: Mallows, "Some comments on Cp", Technometrics 1973, eq. 3.

    Args:
        rss: Residual sums of squares.
        rows: Number of rows n.
        parameters: Estimated coefficients q, the intercept counted.
        variance: s^2 of the full model.

    Example:
        >>> f"{mallows_cp(57.90448, 13, 3, 47.86364 / 8):.2f}"
        '2.68'
    """
    if not (np.isfinite(variance) and variance > 0):
        return np.full(np.broadcast(rss, parameters).shape, np.nan)
    return np.asarray(rss, dtype=np.float64) / variance - rows + 2 * np.asarray(parameters, dtype=np.float64)


def adjusted_r2(rss: Numbers, tss: float | int, residual: Numbers, total: float | int) -> Values:
    r"""Adjusted R^2: the share of variance explained, both variances by their degrees of freedom.

    .. math:: 1 - \frac{\mathrm{RSS} / \nu}{\mathrm{TSS} / \nu_0}

    nan where either has no degrees of freedom, or the target is constant.

    Source: Theil, "Economic forecasts and policy", 1961, p. 213.

    Args:
        rss: Residual sums of squares.
        tss: Sum of squares of the target, about its mean where there is an intercept.
        residual: Residual degrees of freedom.
        total: Degrees of freedom of the target: n - 1 with an intercept, else n.

    Example:
        >>> f"{adjusted_r2(47.86364, 2715.7631, 8, 12):.4f}"
        '0.9736'
    """
    residual = np.asarray(residual, dtype=np.float64)
    variance = tss / total if tss > 0 and total > 0 else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - np.where(residual > 0, np.asarray(rss, dtype=np.float64) / residual, np.nan) / variance


def _deviance(rss: Numbers, rows: float | int) -> Values:
    """Return n log(RSS/n): minus twice the profile log-likelihood but for constants."""
    rss = np.asarray(rss, dtype=np.float64)
    if not rows > 0:
        return np.full(rss.shape, np.nan)
    with np.errstate(divide="ignore"):
        return rows * np.log(rss / rows)
