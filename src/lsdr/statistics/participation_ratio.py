"""Participation ratio of a spectrum."""

from jaxtyping import Float
from torch import Tensor

from lsdr.spectrum import Spectrum


def participation_ratio(spectrum: Spectrum) -> Float[Tensor, ""]:
    r"""Participation ratio: how many eigenvalues take part.

    .. math:: \bigl(\textstyle\sum_k \lambda_k\bigr)^2 / \sum_k \lambda_k^2, \quad \lambda_k = \sigma_k^2

    Convention: sigma squared. Dimensionless, in [1, K]; of a covariance C it is (tr C)^2 / ||C||_F^2. The exponential
    of the Renyi entropy of order 2 of lambda. Invariant to scale and to orthogonal changes of basis; differentiable;
    O(K).

    Source: Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", bioRxiv 214262 (2017).

    Args:
        spectrum: K values, not negative and not all zero; eigenvalues are used as they are.

    Returns:
        0-d tensor on the device of the values.

    Raises:
        ValueError: If all values are zero, or an eigenvalue is negative.

    Example:
        >>> participation_ratio(Spectrum.of([3.0, 1.0], kind="eigenvalues"))
        tensor(1.6000)
    """
    squares = spectrum.relative().squares()
    return squares.sum().square() / squares.square().sum()
