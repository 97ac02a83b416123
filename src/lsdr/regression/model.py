"""A linear model of one size on the path, under statsmodels' names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.design import design_matrix
from lsdr.regression.estimates import Estimated, Estimates
from lsdr.regression.summary import Summary, summarize


@dataclass(frozen=True, eq=False)
class Model(Estimated):
    """Least squares with the terms of one step of a reduction.

    The numbers are those a refit with these terms alone gives. As the terms were chosen on the same rows, t values, p
    values and confidence intervals are descriptive: see `Reduction.split` for ones that are not.

    Args:
        size: Number of terms, the intercept not counted.
        features: Names of the terms, in the order of the data.
        columns: (term, level) of every coefficient but the intercept's.
        estimates: Coefficients with standard errors, "Intercept" first where there is one.
        target: Name of what is explained.
        nobs: Number of rows; the sum of frequency weights where there are such.
        df_resid: Residual degrees of freedom.
        rss: Residual sum of squares (weighted where there are weights).
        rsquared: Share of the variation explained; about the mean where there is an intercept.
        rsquared_adj: The same for the degrees of freedom.
        errors: Which standard errors, in words.
        exact: Whether they are those a refit gives.
        selected: Whether terms were removed to get here, so that t values are descriptive.
        inputs: Names of the columns that the data had, in order.
        levels: Levels of every factor, the reference level (no coefficient) among them.
        design: What makes the columns of a formula from a table of raw ones; None: the table has the columns.
    """

    size: int
    features: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    estimates: Estimates
    target: str
    nobs: float | int
    df_resid: float | int
    rss: float | int
    rsquared: float | int
    rsquared_adj: float | int
    errors: str = "classical"
    exact: bool = True
    selected: bool = True
    inputs: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    design: Callable[[Any], Any] | None = None

    @property
    def mse_resid(self) -> float:
        """Rss / df_resid, the variance of the residuals; nan where no degrees of freedom are left."""
        return self.rss / self.df_resid if self.df_resid > 0 else float("nan")

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predictions for the rows of a table.

        Args:
            X: A table (pandas, polars, Arrow, a dict of arrays) with at least the model's features by name; or an array
                with a column for each of `inputs`, or for each that the model uses.

        Returns:
            (n,) predictions. Rows with missing values: nan.

        Raises:
            ValueError: If a column is missing, or a factor has a level that the fit had not seen.
        """
        table = X if self.design is None else self.design(X)
        used = {name for name, _ in self.columns}
        mine = [name for name in self.inputs if name in used]
        matrix = design_matrix(table, self.columns, features=self.inputs, model=mine, levels=self.levels)
        values = self.estimates.values
        if len(values) == len(self.columns):
            return np.asarray(matrix @ values)
        return np.asarray(matrix @ values[1:] + values[0])

    def summary(self) -> Summary:
        """A table of the coefficients that says what its t values are worth: text, and HTML in notebooks."""
        return summarize(self)
