"""What each example counts where outliers are weighed: by its distance, beside those of the step before."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers._view_sums import Rows, ViewSums
from lsdr.robust_moments import Robust, row_weights

# Squared distances are counted in bins an eighth of an octave wide, 8 octaves below and above the last cut.
_BINS, _OCTAVES = 128, 8
# A step may move and stretch the representation: only what is twice as far as the quantile was is cut off.
_SLACK = {"trimmed": 4.0, "huber": 1.0}


class Outliers:
    """Weights by the distance from the last step's mean, in both views together, against its quantile of distances.

    A weight depends on its example and on what all ranks know of earlier steps, so that weighted sums still add up
    over chunks and ranks, exactly and in the one collective. The first two steps only look.

    Args:
        robust: "trimmed": an example twice as far away as that quantile counts nothing. "huber": one at d times the
            quantile counts 1 / d^2, for d > 1.
        trim: Share of examples beyond the quantile.
    """

    def __init__(self, robust: Robust, trim: float) -> None:
        self._robust, self._trim = robust, trim
        self._mean: Tensor | None = None
        self._quantile: Tensor = torch.tensor(math.inf)
        self._scale: Tensor = torch.tensor(1.0)

    @torch.no_grad()
    def weigh(self, rows: Rows) -> tuple[Float[Tensor, " n"] | None, Float[Tensor, " _"] | None]:
        """What each example counts, None for 1; and how many there are in each bin of distance, None at first."""
        if self._mean is None:
            return None, None
        squared = (rows - self._mean.to(rows)[:, None]).square().sum((0, 2))
        places = ((squared / self._scale.to(rows)).log2() + _OCTAVES) * (_BINS / (2 * _OCTAVES))
        bins = places.nan_to_num(_BINS - 1, _BINS - 1, 0).clamp(0, _BINS - 1).long()
        histogram = torch.bincount(bins, minlength=_BINS).to(rows)
        if not math.isfinite(float(self._quantile)):
            return None, histogram
        return row_weights(squared, _SLACK[self._robust] * self._quantile.to(rows), self._robust), histogram

    def update(self, sums: ViewSums) -> None:
        """Learn from a step's sums over all ranks; those that are not finite teach nothing."""
        spread = sums.spread.sum()
        if not bool(spread.isfinite()):
            return
        if sums.histogram.numel():
            counted = sums.histogram.cumsum(0)
            wanted = (1 - self._trim) * counted[-1]
            number = int((counted < wanted).sum())
            within = (wanted - counted[number] + sums.histogram[number]) / sums.histogram[number]
            octave = (number + within) * (2 * _OCTAVES / _BINS) - _OCTAVES
            self._scale = self._quantile = (self._scale.to(octave) * octave.exp2()).clamp(min=1e-30)
            if sums.count < counted[-1] / 2:  # the representation has moved away: the mean of the rest is no mean
                return
        else:
            self._scale = (spread / sums.count).clamp(min=1e-30)
        self._mean = sums.means

    def state_dict(self) -> dict[str, Tensor]:
        """What was learnt; empty before the first step."""
        if self._mean is None:
            return {}
        return {"mean": self._mean, "quantile": self._quantile, "scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self._mean = state["mean"].clone() if state else None
        self._quantile = state["quantile"].clone() if state else torch.tensor(math.inf)
        self._scale = state["scale"].clone() if state else torch.tensor(1.0)
