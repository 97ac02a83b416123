"""Effective rank of a spectrum."""

from jaxtyping import Float
from torch import Tensor

from lsdr.spectrum import Spectrum
from lsdr.statistics._entropy import entropy


def effective_rank(spectrum: Spectrum) -> Float[Tensor, ""]:
    r"""Effective rank: exponential of the entropy of the normalised singular values.

    .. math:: \exp\bigl(-\textstyle\sum_k p_k \log p_k\bigr), \quad p_k = \sigma_k / \sum_j \sigma_j

    Convention: sigma, not its square. Dimensionless, in [1, K]; K if all values are equal, 1 if one alone is not zero.
    Invariant to scale and to orthogonal changes of basis; differentiable (a zero gets gradient 0); O(K). Differs from
    RankMe (arXiv 2210.02885), the same on features, in adding no epsilon to p.

    Source: Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Args:
        spectrum: K values, not negative and not all zero; of eigenvalues the roots are taken.

    Returns:
        0-d tensor on the device of the values.

    Raises:
        ValueError: If all values are zero, or an eigenvalue is negative.

    Example:
        >>> effective_rank(Spectrum.of([2.0, 2.0, 2.0, 2.0]))
        tensor(4.)
    """
    return entropy(spectrum.relative().singular_values()).exp()
