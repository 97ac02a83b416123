"""One step of a reduction: a model, how good it is, and which of its terms goes next."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.regression.estimates import Estimated, Estimates, finite


@dataclass(frozen=True, eq=False)
class Step(Estimated):
    """The model of one size on the path, and the term that is removed from it next.

    `t`, `F`, `df` and `p_value` are those of the removed term: of one column t, F = t^2 and df = 1, of a factor or a
    group F with df columns and no t. They are nan (df 0) in the last step, from which nothing goes.

    Args:
        size: Number of terms in the model, the intercept not counted.
        terms: Their names, in the order of the data.
        removed: The term that goes next; None in the last step.
        t: Its t value; nan for a factor.
        F: Its F-to-remove.
        df: Its number of columns (numerator degrees of freedom of F).
        p_value: Of F, as if the model had been given.
        estimates: Coefficients of this model with standard errors.
        rss: Residual sum of squares (weighted where there are weights), in squared units of the target.
        mse: Mean squared error on the rows of the fit: rss over the sum of weights, of the rows without weights.
        df_resid: Residual degrees of freedom; with ridge, not an integer.
        r_squared: Share of the variation explained; about the mean where there is an intercept.
        adjusted_r_squared: The same for the degrees of freedom.
        aic: n ln(RSS / n) + 2 (k + 1), as R's extractAIC.
        bic: The same with ln(n) for 2.
        cp: Mallows' Cp against the full model.
        mse_heldout: Mean squared error on rows held out, the selection run anew without them; nan without folds.
        mse_heldout_se: Its standard error over the folds.
        exact: Whether the standard errors are those a refit gives; False: approximate (see `Reduction.errors`).
    """

    size: int
    terms: tuple[str, ...]
    removed: str | None
    t: float | int
    F: float | int
    df: int
    p_value: float | int
    estimates: Estimates
    rss: float | int
    mse: float | int
    df_resid: float | int
    r_squared: float | int
    adjusted_r_squared: float | int
    aic: float | int
    bic: float | int
    cp: float | int
    mse_heldout: float | int = math.nan
    mse_heldout_se: float | int = math.nan
    exact: bool = True

    def to_json(self) -> dict[str, Any]:
        """The step as JSON has it: infinite and undefined numbers are null."""
        names = self.estimates.names
        return {
            "size": self.size,
            "removed": self.removed,
            "t": finite(self.t),
            "F": finite(self.F),
            "df": self.df if self.removed is not None else None,
            "p_value": finite(self.p_value),
            "tvalues": dict(zip(names, map(finite, self.estimates.t.tolist()), strict=True)),
            "params": dict(zip(names, map(finite, self.estimates.values.tolist()), strict=True)),
            "rss": finite(self.rss),
            "mse": finite(self.mse),
            "df_resid": finite(self.df_resid),
            "r2": finite(self.r_squared),
            "adjusted_r2": finite(self.adjusted_r_squared),
            "aic": finite(self.aic),
            "bic": finite(self.bic),
            "cp": finite(self.cp),
            "mse_heldout": finite(self.mse_heldout),
            "mse_heldout_se": finite(self.mse_heldout_se),
            "exact": self.exact,
        }
