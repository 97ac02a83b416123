"""A spectral norm between two numbers that are proved."""

import math
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import LinAlgError, cholesky, eigh
from torch import Tensor

from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.singular_values import check_finite, lower_gram
from lsdr.spectrum import Spectrum

_UNIT = Fraction(1, 2**53)


def certified_norm(matrix: Float[Tensor, "m n"]) -> Spectrum:
    r"""The spectral norm of a matrix between bounds that no rounding can have spoiled.

    .. math:: \frac{\|A v\|}{\|v\|} \le \sigma_1 \le \sqrt{s + e}, \quad
        s I - \mathrm{fl}(A A^T) \succeq -e_1 I, \; \|\mathrm{fl}(A A^T) - A A^T\|_2 \le e_2, \; e = e_1 + e_2

    In float64, whatever the matrix is stored in; every error is bounded by the rules of IEEE arithmetic alone, for sums
    in any order, and the last operations round outwards. The upper bound is that of a matrix S = s I - fl(AA') whose
    Cholesky factorisation runs to its end, which proves that no eigenvalue of S is below -gamma_{k+2} tr(S) / (1 -
    gamma_{k+2}). Nothing random, nothing assumed but that BLAS multiplies by the schoolbook method (not Strassen's)
    and LAPACK's Cholesky factorisation does no more operations than the textbook's (one is allowed for each element).

    The squared bounds are (n |A|_F^2 / sigma_1^2 + k^2) 1e-16 of the value apart, for k <= n: below 1e-8 for a layer of
    4096 x 16384. A float32 Gram matrix, by contrast, comes out below the truth about every other time.

    In the units of the matrix; not differentiable. On the CPU; cost: that of `singular_values` in float64.

    Source: for the Cholesky factorisation S. M. Rump, "Verification of positive definiteness", BIT 46 (2006), theorem
    2.3, after J. Demmel, LAPACK Working Note 14 (1989); for products N. J. Higham, "Accuracy and Stability of
    Numerical Algorithms", sections 3.1 and 3.5.

    Args:
        matrix: Shape (m, n), any floating type.

    Returns:
        One value, in float64 on the CPU, with its bounds.

    Raises:
        ValueError: If the matrix is empty or not finite.

    Example:
        >>> spectrum = certified_norm(torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
        >>> bool(spectrum.lower <= spectrum.values) and bool(spectrum.upper < spectrum.lower * (1 + 1e-12))
        True
    """
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"expected a matrix with rows and columns, got shape {tuple(matrix.shape)}")
    stored = matrix.detach().cpu()
    check_finite(stored)
    wide = (stored if stored.shape[0] <= stored.shape[1] else stored.mT).double()
    largest = float(wide.abs().amax())
    if largest == 0:
        return _spectrum(0.0, 0.0, 0.0)
    # A power of two: exact but for what is 1e-300 of the largest, which the terms named tiny below make good.
    exponent = -math.frexp(largest)[1]
    wide = wide * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)
    with full_precision(wide.device):
        gram = lower_gram(wide, torch.float64)[0].numpy()
    gram = np.tril(gram) + np.tril(gram, -1).T
    k, n = wide.shape
    values, vectors = eigh(gram, subset_by_index=[k - 1, k - 1])
    if not len(values):  # LAPACK's bisection finds none where all agree to the last digits
        values, vectors = (part[..., -1:] for part in eigh(gram, driver="evd"))
    estimate = max(float(values[0]), 0.25)  # the largest element is 1/2 at least
    low, high = _lower(wide, vectors[:, 0]), _upper(gram, estimate, n)
    value = min(max(estimate**0.5, low), high)
    return _spectrum(math.ldexp(value, -exponent), _scaled(low, -exponent, 0.0), _scaled(high, -exponent, math.inf))


def _lower(wide: Tensor, vector: np.ndarray) -> float:
    """|A' u| / |u| for a left vector u."""
    u = torch.from_numpy(vector)
    k, n = wide.shape
    product = (wide.mT @ u).numpy()
    # Higham (3.11): each element is off by gamma_k |A'| |u| at most, of which the computed one is off as much.
    slack = math.nextafter(float(_error(k)), 1.0) * (wide.abs().mT @ u.abs()).numpy()
    least = _root(_squares(product, -1), 0.0) - _root(_squares(slack, 1), math.inf) - Fraction(k * n, 2**1000)
    ratio = max(least, Fraction(0)) / _root(_squares(vector, 1), math.inf)
    near = float(ratio)
    return math.nextafter(near, 0.0) if Fraction(near) > ratio else near


def _upper(gram: np.ndarray, estimate: float, n: int) -> float:
    """Of the root of the largest eigenvalue of the matrix that this is the computed Gram matrix of."""
    k = len(gram)
    margin = 4 * k * float(_UNIT)
    for _ in range(40):
        s = estimate * (1 + margin)
        shifted = -gram
        diagonal = s - gram.diagonal()
        np.fill_diagonal(shifted, diagonal)
        try:
            cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
            break
        except LinAlgError:
            margin *= 4
    else:
        raise ArithmeticError("no multiple of the identity proved to be above the Gram matrix")
    trace = sum((Fraction(float(x)) for x in diagonal), Fraction(0))
    subtraction = Fraction(float(np.abs(diagonal).max())) * _UNIT
    # |fl(AA') - AA'| <= gamma_n |A||A'| by elements, whose norm is at most |A|_F^2 = tr(AA').
    squares = sum((Fraction(float(x)) for x in gram.diagonal()), Fraction(0))
    tiny = Fraction(k * (n + k), 2**1000)  # underflow
    total = Fraction(s) + _error(k + 2) * trace + subtraction + _error(n) * squares + tiny
    return float(_root(total, math.inf))


def _error(n: int) -> Fraction:
    """gamma_n / (1 - gamma_n), with gamma_n = n u / (1 - n u) of Higham (3.1)."""
    gamma = n * _UNIT / (1 - n * _UNIT)
    return gamma / (1 - gamma)


def _squares(x: np.ndarray, sign: int) -> Fraction:
    """The sum of squares; not above (sign -1) or not below (sign 1) the truth."""
    total = Fraction(math.fsum(np.square(x).tolist()))  # one rounding for each square and one for the sum
    return max(total * (1 + sign * 4 * _UNIT) + sign * Fraction(len(x), 2**1000), Fraction(0))


def _root(x: Fraction, towards: float) -> Fraction:
    """A float on that side of the root, or the root."""
    root = math.sqrt(x)
    while Fraction(root) ** 2 < x if towards else Fraction(root) ** 2 > x:
        root = math.nextafter(root, towards)
    return Fraction(root)


def _scaled(number: float, exponent: int, towards: float) -> float:
    """Times a power of two, rounded to that side where it leaves the normal numbers."""
    scaled = math.ldexp(number, exponent)
    return math.nextafter(scaled, towards) if 0 < scaled < 2.0**-1021 else scaled


def _spectrum(value: float, low: float, high: float) -> Spectrum:
    numbers = [torch.tensor([number], dtype=torch.float64) for number in (value, low, high)]
    return Spectrum.of(numbers[0], method="certified in float64", lower=numbers[1], upper=numbers[2])
