"""Standard errors that hold where the noise differs from row to row: HC0, HC1, HC2 and HC3."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch
from lsdr.regression.small_sample import small_sample
from lsdr.regression.whitened import Whitened

Kind = Literal["HC0", "HC1", "HC2", "HC3"]
KINDS: tuple[str, ...] = get_args(Kind)
_FULL = 1e-10  # A row whose leverage is within this of 1 is fitted exactly by a column of its own.


class Heteroskedastic:
    r"""Meat of the sandwich of one or more fitted models, from one more pass over the rows.

    .. math:: V = (X^\top W X)^{-1} \Big(\sum_i \omega_i x_i x_i^\top\Big) (X^\top W X)^{-1}, \quad
              \omega_i = w_i^2 e_i^2 / (1 - h_i)^d

    with d = 0 (HC0, and HC1 times n/(n - k)), 1 (HC2), 2 (HC3) and h the leverage. Frequency weights f mean f rows:
    omega = f e^2/(1 - h)^d with the leverage of one row. A row of leverage 1 is fitted exactly whatever y is: HC2 and
    HC3 are undefined there, it is left out and counted in `full_leverage`.

    Source: MacKinnon & White, "Some heteroskedasticity-consistent covariance matrix estimators with improved finite
    sample properties", Journal of Econometrics 1985. Cost: O(n k^2) a model; memory O(k^2) a model.

    Args:
        models: The fitted models, each exact in its own residuals and leverages.
        kind: "HC0" to "HC3".
        frequency: Whether the weights count rows.

    Raises:
        ValueError: If the kind is not one of these.
    """

    def __init__(self, models: Sequence[Whitened], kind: str = "HC3", frequency: bool = False) -> None:
        """Start empty."""
        if kind not in KINDS:
            raise ValueError(f"errors must be one of {', '.join(KINDS)} here, got {kind!r}")
        self.models, self.kind, self.frequency = tuple(models), kind, frequency
        self.meats = [np.zeros((model.root.shape[1] + model.intercept,) * 2) for model in models]
        self.full_leverage = [0] * len(self.meats)

    def add(self, batch: Batch) -> "Heteroskedastic":
        """Add the rows of one batch; rows of weight 0 count for nothing."""
        power = {"HC2": 1, "HC3": 2}.get(self.kind, 0)
        for place, model in enumerate(self.models):
            for u, residuals, weights in model.rows_of(batch):
                omega = residuals**2
                if not self.frequency:
                    omega *= weights
                if power:
                    leverage = np.einsum("ij,ij->i", u, u)
                    left = 1 - (leverage / weights if self.frequency else leverage)
                    full = left < _FULL
                    omega = np.where(full, 0.0, omega / np.where(full, 1.0, left) ** power)
                    self.full_leverage[place] += int(full.sum())
                scaled = u * np.sqrt(omega)[:, None]
                self.meats[place] += scaled.T @ scaled
        return self

    def merge(self, other: "Heteroskedastic") -> "Heteroskedastic":
        """Add the rows of another state in place."""
        self.meats = [mine + theirs for mine, theirs in zip(self.meats, other.meats, strict=True)]
        self.full_leverage = [a + b for a, b in zip(self.full_leverage, other.full_leverage, strict=True)]
        return self

    def covariance(self, place: int) -> NDArray[np.float64]:
        """Exact covariance matrix of a model's coefficients in original units, the intercept (if any) first."""
        model = self.models[place]
        factor = small_sample(self.kind, None, model.rows, model.df_resid)
        return np.asarray(model.back @ self.meats[place] @ model.back.T) * factor
