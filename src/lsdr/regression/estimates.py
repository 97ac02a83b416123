"""Coefficients by name with their standard errors, and what follows from them: t, p, confidence intervals."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit


@dataclass(frozen=True, eq=False)
class Estimates:
    r"""Coefficients, standard errors, t, p and confidence intervals under statsmodels' names.

    .. math:: t_j = \frac{b_j}{\mathrm{se}_j}, \quad p_j = 2\,\Pr(T_{df} > |t_j|), \quad
        b_j \pm T_{df}^{-1}(1 - \alpha/2)\,\mathrm{se}_j

    A standard error of exactly 0 (an exact fit) gives t = +-inf and p = 0, and nan where the coefficient is 0 too. An
    undefined one (nan: no degrees of freedom are left) gives nan everywhere.

    Args:
        names: Display names of the columns in the model, "Intercept" first where there is one.
        values: (k,) coefficients in the units of the data.
        errors: (k,) their standard errors.
        df: Degrees of freedom of t; infinite for the normal distribution.

    Example:
        >>> found = Estimates(("Intercept", "area"), np.array([1.0, 3.0]), np.array([0.5, 0.75]), 20.0)
        >>> float(found.tvalues["area"]), round(float(found.pvalues["area"]), 6)
        (4.0, 0.000704)
        >>> found.conf_int().loc["area"].round(4).tolist()
        [1.4356, 4.5644]
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    df: float | int

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit the names."""
        if not self.values.shape == self.errors.shape == (len(self.names),):
            raise ValueError(
                f"{len(self.names)} names need as many coefficients and standard errors, "
                f"got shapes {self.values.shape} and {self.errors.shape}."
            )

    @property
    def t(self) -> NDArray[np.float64]:
        """(k,) t values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.values / self.errors)

    @property
    def params(self) -> pd.Series:
        """Coefficients by name."""
        return self._series(self.values)

    @property
    def bse(self) -> pd.Series:
        """Standard errors by name."""
        return self._series(self.errors)

    @property
    def tvalues(self) -> pd.Series:
        """Coefficients in standard errors, by name."""
        return self._series(self.t)

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided probabilities of a |t| at least as large, by name; as if the model had been given."""
        # stdtr of infinite degrees of freedom is the normal distribution; of none or fewer, nan.
        return self._series(2.0 * np.asarray(stdtr(self.df, -np.abs(self.t))))

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Confidence intervals of level 1 - alpha: columns 0 (lower) and 1 (upper).

        Raises:
            ValueError: If alpha is not between 0 and 1.
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha is the share of intervals that miss, between 0 and 1, got {alpha!r}.")
        quantile = float(ndtri(1.0 - alpha / 2) if np.isinf(self.df) else stdtrit(self.df, 1.0 - alpha / 2))
        half = quantile * self.errors
        return pd.DataFrame({0: self.values - half, 1: self.values + half}, index=list(self.names))

    def to_json(self) -> dict[str, Any]:
        """Everything by name, 95 % intervals too; infinite and undefined numbers are null."""
        interval = self.conf_int().to_numpy().tolist()
        return {
            "params": self._plain(self.values),
            "bse": self._plain(self.errors),
            "tvalues": self._plain(self.t),
            "pvalues": self._plain(self.pvalues.to_numpy()),
            "conf_int": {
                name: [finite(low), finite(high)] for name, (low, high) in zip(self.names, interval, strict=True)
            },
        }

    def _plain(self, values: NDArray[np.float64]) -> dict[str, float | None]:
        return dict(zip(self.names, map(finite, values.tolist()), strict=True))

    def _series(self, values: NDArray[np.float64]) -> pd.Series:
        return pd.Series(values, index=list(self.names), dtype="float64")


class Estimated:
    """What has `estimates`, under statsmodels' names; whether selection has touched them is for its class to say."""

    estimates: Estimates

    @property
    def params(self) -> pd.Series:
        """Coefficients by name, in the units of the data."""
        return self.estimates.params

    @property
    def bse(self) -> pd.Series:
        """Standard errors by name."""
        return self.estimates.bse

    @property
    def tvalues(self) -> pd.Series:
        """Coefficients in standard errors, by name."""
        return self.estimates.tvalues

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p values by name, as if the model had been given."""
        return self.estimates.pvalues

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Confidence intervals of level 1 - alpha, as if the model had been given: columns 0 and 1."""
        return self.estimates.conf_int(alpha)


def finite(value: float | int) -> float | None:
    """A number as strict JSON can have it: None for infinite and undefined ones."""
    return float(value) if math.isfinite(value) else None
