"""The edges between which a random matrix has its singular values."""

import math

from jaxtyping import Int
from torch import Tensor

from lsdr.spectrum import Spectrum


def marchenko_pastur_edges(rows: int, columns: int, deviation: float = 1.0) -> tuple[float, float]:
    r"""Edges of the Marchenko-Pastur law for the singular values of a matrix of independent entries.

    .. math:: s\,|\sqrt m - \sqrt n|, \qquad s\,(\sqrt m + \sqrt n)

    Convention: sigma, not divided by any root of a dimension; the edges of the eigenvalues of W W^T are the squares.
    In units of the entries. They hold as m and n grow; of a finite matrix the extreme values scatter about them by
    about s min(m, n)^(-1/6) (Tracy-Widom). If m and n differ, the smaller number of values lies between the edges.

    Source: Marchenko & Pastur 1967; Bai & Silverstein, "Spectral analysis of large dimensional random matrices",
    2nd edition, chapter 5.

    Args:
        rows: m, at least 1.
        columns: n, at least 1.
        deviation: s, standard deviation of an entry.

    Returns:
        Lower and upper edge.

    Raises:
        ValueError: If a dimension is below 1, or the deviation is negative or not finite.

    Example:
        >>> lower, upper = marchenko_pastur_edges(2000, 1000, deviation=2000**-0.5)
        >>> round(lower, 4), round(upper, 4)
        (0.2929, 1.7071)
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns must be at least 1, got {rows} and {columns}")
    if not 0 <= deviation < math.inf:
        raise ValueError(f"deviation must be finite and not negative, got {deviation}")
    return deviation * abs(math.sqrt(rows) - math.sqrt(columns)), deviation * (math.sqrt(rows) + math.sqrt(columns))


def marchenko_pastur_outliers(
    spectrum: Spectrum, rows: int, columns: int, deviation: float | None = None
) -> Int[Tensor, ""]:
    r"""Count the singular values above the upper Marchenko-Pastur edge: directions that noise does not explain.

    .. math:: \#\{k : \sigma_k > s\,(\sqrt m + \sqrt n)\}, \quad s^2 = \textstyle\sum_k \sigma_k^2 / (mn)

    Convention: sigma. In [0, K]; invariant to scale unless the deviation is given; not differentiable. With s from the
    spectrum itself outliers raise their own threshold, so the count is conservative; without any outlier the largest
    value passes the edge by chance now and then (see the scatter in `marchenko_pastur_edges`).

    Source: Martin & Mahoney, "Implicit self-regularization in deep neural networks", JMLR 2021 ("spikes").

    Args:
        spectrum: All singular values of an (m, n) matrix, or the eigenvalues of its Gram matrix.
        rows: m.
        columns: n.
        deviation: s; None takes the root mean square entry, from the spectrum.

    Returns:
        0-d integer tensor on the device of the values.

    Raises:
        ValueError: If a dimension is below 1, the deviation is negative or not finite, or an eigenvalue is negative.

    Example:
        >>> marchenko_pastur_outliers(Spectrum.of([9.0, 1.0, 0.9, 0.4]), 4, 4, deviation=0.5)
        tensor(1)
    """
    values = spectrum.singular_values().detach()
    if deviation is None:
        deviation = values.norm().item() / math.sqrt(max(rows * columns, 1))
    _, upper = marchenko_pastur_edges(rows, columns, deviation)
    return (values > upper).sum()
