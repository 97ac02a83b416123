"""Spectral entropy."""

from jaxtyping import Float
from torch import Tensor

from lsdr.spectrum import Spectrum
from lsdr.statistics._entropy import entropy


def spectral_entropy(spectrum: Spectrum) -> Float[Tensor, ""]:
    r"""Entropy of the share of each direction in the squared Frobenius norm (for a covariance: in the variance).

    .. math:: -\textstyle\sum_k p_k \log p_k, \quad p_k = \sigma_k^2 / \sum_j \sigma_j^2

    Convention: sigma squared. In nats, in [0, log K]. Invariant to scale and to orthogonal changes of basis;
    differentiable (a zero gets gradient 0); O(K). WeightWatcher's matrix entropy is this divided by the logarithm of
    the rank; `effective_rank` is the exponential of the entropy of sigma, not of its square.

    Source: the von Neumann entropy of the trace-normalised Gram matrix.

    Args:
        spectrum: K values, not negative and not all zero; eigenvalues are used as they are.

    Returns:
        0-d tensor on the device of the values.

    Raises:
        ValueError: If all values are zero, or an eigenvalue is negative.

    Example:
        >>> spectral_entropy(Spectrum.of([3.0, 3.0]))
        tensor(0.6931)
    """
    return entropy(spectrum.relative().squares())
