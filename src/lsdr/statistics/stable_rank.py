"""Stable rank of a spectrum."""

from jaxtyping import Float
from torch import Tensor

from lsdr.spectrum import Spectrum


def stable_rank(spectrum: Spectrum) -> Float[Tensor, ""]:
    r"""Stable rank: squared Frobenius norm over squared spectral norm.

    .. math:: \|W\|_F^2 / \sigma_1^2 = \textstyle\sum_k \sigma_k^2 / \sigma_1^2

    Convention: sigma squared. Dimensionless, in [1, K]. Invariant to scale and to orthogonal changes of basis;
    differentiable where sigma_1 is simple (on a tie the gradient is one of the subgradients); O(K). Half-precision
    storage of a matrix hardly moves it.

    Source: Rudelson & Vershynin, "Sampling from large matrices", J. ACM 2007, remark 1.3 ("numerical rank").

    Args:
        spectrum: K values, not negative and not all zero; eigenvalues are used as they are.

    Returns:
        0-d tensor on the device of the values.

    Raises:
        ValueError: If all values are zero, or an eigenvalue is negative.

    Example:
        >>> stable_rank(Spectrum.of([2.0, 1.0, 1.0]))
        tensor(1.5000)
    """
    squares = spectrum.relative().squares()
    return squares.sum() / squares[0]
