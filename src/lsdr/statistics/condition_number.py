"""Condition number of a spectrum."""

from jaxtyping import Float
from torch import Tensor

from lsdr.spectrum import Spectrum


def condition_number(spectrum: Spectrum) -> Float[Tensor, ""]:
    r"""Condition number in the spectral norm.

    .. math:: \sigma_1 / \sigma_K

    Convention: sigma; of the eigenvalues of a Gram or covariance matrix it is therefore the root of that matrix's own
    condition number. Dimensionless, in [1, infinity], infinite if the smallest value is zero. Invariant to scale and
    to orthogonal changes of basis; differentiable where it is finite and the two extremes are simple; O(1). Only as
    good as the smallest value: of weights stored in bfloat16, or of values from a truncated method, it means little.

    Source: Golub & Van Loan, "Matrix computations", 4th edition, section 2.6.2.

    Args:
        spectrum: K values, not negative and not all zero; of eigenvalues the roots are taken.

    Returns:
        0-d tensor on the device of the values.

    Raises:
        ValueError: If all values are zero, or an eigenvalue is negative.

    Example:
        >>> condition_number(Spectrum.of([4.0, 1.0, 0.5]))
        tensor(8.)
    """
    values = spectrum.relative().singular_values()
    return values[0] / values[-1]
