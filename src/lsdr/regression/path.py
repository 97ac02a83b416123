"""What backward elimination leaves: every model on the way from the full one to the smallest."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.columns import Term


@dataclass(frozen=True, eq=False)
class Current:
    """A model on the path, in original units, as robust standard errors need it.

    Attributes:
        indices: Columns present, as positions in the system's columns, ascending, shape (k,).
        inverse: Inverse of the cross-products of these columns (centred if there is an intercept), shape (k, k).
        coefficients: Shape (k,).
        intercept: 0 without one.
        df_resid: Residual degrees of freedom.
        rss: Residual sum of squares.
    """

    indices: NDArray[np.intp]
    inverse: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float
    df_resid: float
    rss: float


@runtime_checkable
class StandardErrors(Protocol):
    """Robust covariances of the models on the path."""

    def __call__(self, current: Current) -> NDArray[np.float64]:
        """Covariance matrix of the coefficients, shape (k, k), original units."""

    def intercept_variance(self, current: Current) -> float:
        """Variance of the intercept."""

    def df(self, current: Current) -> float:
        """Degrees of freedom of the t values."""


@dataclass(frozen=True, eq=False)
class Path:
    """The models from the full one (step 0) to the smallest; a step's removed term goes next, from that model.

    Attributes:
        terms: All terms of the system.
        order: Names of the removed terms in turn, one fewer than steps.
        size: Number of terms in the model, shape (steps,).
        rss: Residual sum of squares, shape (steps,); 0 where the fit is exact to rounding.
        df_resid: Residual degrees of freedom, shape (steps,); rows minus effective parameters with a ridge penalty.
        coefficients: Shape (steps, columns), original units, nan where a column is not in the model.
        intercepts: Shape (steps,), 0 without an intercept.
        inverse_diagonal: Variances of the coefficients over the residual variance, shape (steps, columns).
        intercept_variance: That of the intercept, shape (steps,); nan without one.
        variances: Variances of the coefficients, shape (steps, columns): robust where that was asked for.
        intercept_variances: Those of the intercept, shape (steps,).
        df_t: Degrees of freedom of t and F, shape (steps,).
        tvalues: Coefficients over their standard errors, shape (steps, columns). In an exact fit infinite, or nan
            where the coefficient is 0 to rounding as well; nan without residual degrees of freedom.
        intercept_tvalues: Shape (steps,).
        t: t value of the removed term, shape (steps,); nan where it has several columns, and in the last step.
        F: F statistic of the removed term, shape (steps,), likewise.
        df: Columns of the removed term, shape (steps,); 0 in the last step.
        p_value: Of the F statistic, shape (steps,).
    """

    terms: tuple[Term, ...]
    order: tuple[str, ...]
    size: NDArray[np.intp]
    rss: NDArray[np.float64]
    df_resid: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    inverse_diagonal: NDArray[np.float64]
    intercept_variance: NDArray[np.float64]
    variances: NDArray[np.float64]
    intercept_variances: NDArray[np.float64]
    df_t: NDArray[np.float64]
    tvalues: NDArray[np.float64]
    intercept_tvalues: NDArray[np.float64]
    t: NDArray[np.float64]
    F: NDArray[np.float64]
    df: NDArray[np.intp]
    p_value: NDArray[np.float64]

    def terms_left(self, step: int) -> tuple[Term, ...]:
        """The terms of the model at a step."""
        gone = set(self.order[:step])
        return tuple(term for term in self.terms if term.name not in gone)
