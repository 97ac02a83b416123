"""Bounds of singular values from Ritz values and the Frobenius norm."""

import math
from collections.abc import Sequence

import torch

from lsdr.spectrum import Spectrum

# Relative error that is allowed for in a sum of squares: a megabyte of float32 summed in 16 lanes, one by one.
_SQUARES_ERROR = 2.0**-10


def rounding(shape: tuple[int, int], dtype: torch.dtype) -> float:
    """Rounding error that is allowed for in a squared singular value from products in a type, relative to the largest.

    8 u sqrt(max(m, n)), u the unit roundoff: long sums round that far where a matrix is thin and its product with a
    vector is one sum, element after element (half of it was seen). Statistical: for a proof see `certified_norm`.
    """
    return 4 * torch.finfo(dtype).eps * math.sqrt(max(shape))


def ritz_spectrum(
    squares: Sequence[float],
    residual: Sequence[float],
    frobenius: float | None,
    *,
    scale: float,
    allowance: float,
    method: str,
    upper: float = math.inf,
) -> Spectrum:
    r"""Singular values with bounds from lower bounds of their squares.

    .. math:: \sigma_j^2 \le |A|_F^2 - \sum_{i \ne j} \theta_i, \quad j \sigma_j^2 \le |A|_F^2 - \sum_{i > j} \theta_i

    Args:
        squares: :math:`\theta_i \le \sigma_i^2`, descending, in units of `scale` squared.
        residual: Relative residuals.
        frobenius: :math:`|A|_F^2` in the same units; None if not known.
        scale: The unit of the values.
        allowance: Rounding error of the largest square, relative; see `rounding`. The other squares have the same
            absolute error, so that values below the root of it are lost in it and have 0 as their lower bound.
        method: What it is called.
        upper: Another upper bound of the largest value.
    """
    values = [math.sqrt(square) * scale for square in squares]
    certain = [max(square - allowance * squares[0], 0.0) for square in squares]
    lower = [math.sqrt(square) * scale for square in certain]
    rows = [values, lower, list(residual)]
    if frobenius is not None or upper < math.inf:
        high = [upper] * len(values)
        if frobenius is not None:
            total, above = frobenius * (1 + _SQUARES_ERROR), sum(certain)
            after = above
            for j, square in enumerate(certain, 1):
                after -= square
                most = min(total - (above - square), (total - after) / j)
                high[j - 1] = min(high[j - 1], scale * math.sqrt(max(most, 0.0)))
        rows.append([max(bound, value) for bound, value in zip(high, values, strict=True)])
    tensors = torch.tensor(rows, dtype=torch.float64).unbind()
    bound = tensors[3] if len(tensors) == 4 else None
    return Spectrum(tensors[0], "singular_values", method, tensors[1], bound, tensors[2])
