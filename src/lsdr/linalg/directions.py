"""Left singular vectors of a weight, and which of a changed weight's are not among them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.singular_values import short_side_vectors
from lsdr.spectrum import Spectrum

TOP = 10
"""How many of the changed weight's directions are looked at."""
INTRUDER_COSINE = 0.5
NEW_GAIN = 0.5


class Directions(NamedTuple):
    """Of the changed weight's largest directions; see `lsdr.inspection.compare.delta`."""

    nearest: Float[Tensor, "top"]
    """Largest cosine to any left singular vector of the base."""
    gains: Float[Tensor, "top"]
    """What the base does with the direction, over the changed weight's singular value."""

    def intruders(self) -> int:
        """How many are far from all of the base's."""
        return int((self.nearest < INTRUDER_COSINE).sum())

    def new(self) -> int:
        """How many of these the base hardly uses."""
        return int(((self.nearest < INTRUDER_COSINE) & (self.gains < NEW_GAIN)).sum())


def left_vectors(matrix: Float[Tensor, "m n"]) -> tuple[Spectrum, Float[Tensor, "m k"]]:
    """Singular values and left singular vectors of a matrix, as columns; those that rounding decides are left out."""
    spectrum, short = short_side_vectors(matrix)
    if matrix.shape[0] <= matrix.shape[1]:
        return spectrum, short
    # The short side is the right one: u = A v / |A v|, where A v is more than rounding.
    left = matrix.double() @ short[:, : above_rounding(spectrum.values)]
    return spectrum, left / left.norm(dim=0).clamp_min(torch.finfo(left.dtype).tiny)


def above_rounding(values: Float[Tensor, "k"]) -> int:
    """How many values are above a ten-thousandth of the largest, where vectors mean something."""
    return max(int((values > 1e-4 * values[0]).sum()), 1)
