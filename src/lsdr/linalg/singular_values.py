"""All singular values of a stored matrix, each between bounds."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from scipy.stats import chi2
from torch import Tensor

from lsdr.linalg.full_precision import full_precision
from lsdr.spectrum import Spectrum

# Bytes of a copy of a part of the matrix in the type of the products.
_COPIED_BYTES = 1 << 25
# The Gram matrix in this many blocks of rows: half the products are not needed, and of large ones BLAS makes the most.
_TRIANGLE = 8
_PROBES = 4
_FAILURE = 1e-3


def singular_values(matrix: Float[Tensor, "m n"], precision: Literal["float32", "float64"] = "float64") -> Spectrum:
    r"""All min(m, n) singular values of a matrix, with bounds.

    .. math:: \sigma_k = \sqrt{\lambda_k}, \quad \lambda_k \text{ eigenvalues of } A A^T \text{ or } A^T A

    Matrices of up to float32 are squared on the short side, in blocks without a copy of the whole, and the eigenvalues
    of that taken: many times faster than an SVD. With precision "float64" (products of float32 numbers are exact in
    it) values down to about 3e-8 of the largest are told from zero, finer than float32 weights are rounded; with
    "float32", at about twice the speed, those down to 1e-3 to 6e-3 of the largest: enough for norms and ranks.
    Matrices in float64 get an SVD, as squaring would cost them half their digits.

    Bounds: every value is within E of an eigenvalue and :math:`\sqrt{\max(\lambda_k - E, 0)} \le \sigma_k \le
    \sqrt{\lambda_k + E}`. E is the error of the Gram matrix and of the eigenvalue solver. In float32 the former is
    measured: its product with four Gaussian vectors is compared with that of the matrix itself in float64, and the
    Frobenius norm of the error is below what that shows but for a probability of 1e-3. In float64 it is
    8 (1 + n / 8192) u max_i |a_i| |A|_F for rows a_i of the short side, many times what rounding does; the solver's is
    taken as 8 sqrt(K) u lambda_1 (up to 3 sqrt(K) u was seen), that of the SVD as max(m, n) eps sigma_1. These are
    statistical; for a proof see `certified_norm`.

    In the units of the matrix; not differentiable. Cost: O(m^2 n + m^3) for m <= n. Deterministic.

    Args:
        matrix: Shape (m, n), any floating type, on any device (of MPS, which has no float64, on the CPU).
        precision: Of squaring and eigenvalues, for matrices of up to float32.

    Returns:
        Values and bounds in float32 (float64 for float64), rounded outwards, on the matrix's device.

    Raises:
        ValueError: If the matrix is empty or not finite.

    Example:
        >>> spectrum = singular_values(torch.tensor([[0.0, 3.0, 0.0], [4.0, 0.0, 0.0]]))
        >>> spectrum.values, spectrum.method
        (tensor([4., 3.]), 'Gram matrix in float64')
    """
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision must be 'float32' or 'float64', got {precision!r}")
    wide = _wide(matrix)
    with full_precision(wide.device):
        if wide.dtype == torch.float64:
            check_finite(wide)
            values = torch.linalg.svdvals(wide)
            error = max(wide.shape) * torch.finfo(torch.float64).eps * values[0]
            return _spectrum(values, values - error, values + error, matrix, "SVD in float64")
        dtype = torch.float64 if precision == "float64" else torch.float32
        gram, factor = lower_gram(wide, dtype)
        eigenvalues = torch.linalg.eigvalsh(gram).flip(0)
        error = _gram_error(wide, gram, factor) + _solver_error(eigenvalues)
        return _roots(eigenvalues.double(), error, factor, matrix, f"Gram matrix in {precision}")


def short_side_vectors(matrix: Float[Tensor, "m n"]) -> tuple[Spectrum, Float[Tensor, "k k"]]:
    """All singular values, and the singular vectors of the shorter side.

    As `singular_values` in float64; vectors of close values are any basis of what they span together, and those of
    values near zero are accurate only together.

    Args:
        matrix: Shape (m, n).

    Returns:
        The spectrum, and vectors in float64 as columns in the order of the values: left ones (outputs) for m <= n,
        right ones (inputs) otherwise.

    Raises:
        ValueError: If the matrix is empty or not finite.

    Example:
        >>> spectrum, vectors = short_side_vectors(torch.tensor([[0.0, 3.0, 0.0], [4.0, 0.0, 0.0]]))
        >>> vectors.abs()
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    wide = _wide(matrix)
    with full_precision(wide.device):
        if wide.dtype == torch.float64:
            check_finite(wide)
            vectors, values, _ = torch.linalg.svd(wide, full_matrices=False)
            error = max(wide.shape) * torch.finfo(torch.float64).eps * values[0]
            return _spectrum(values, values - error, values + error, matrix, "SVD in float64"), vectors
        gram, factor = lower_gram(wide, torch.float64)
        eigenvalues, vectors = torch.linalg.eigh(gram)
        eigenvalues = eigenvalues.flip(0)
        error = _gram_error(wide, gram, factor) + _solver_error(eigenvalues)
        return _roots(eigenvalues, error, factor, matrix, "Gram matrix in float64"), vectors.flip(1)


def lower_gram(wide: Float[Tensor, "k n"], dtype: torch.dtype) -> tuple[Float[Tensor, "k k"], float]:
    """Lower triangle of the Gram matrix of a wide matrix times a power of two; what is above it is not defined.

    Args:
        wide: Of shape (k, n), as stored.
        dtype: Of the products.

    Returns:
        The Gram matrix of factor x matrix, and the factor: 1 unless squares would leave the type's range.

    Raises:
        ValueError: If the matrix is not finite.
    """
    gram = _accumulate(wide, dtype, 1.0)
    largest = float(gram.diagonal().amax())
    limit = 1e30 if dtype == torch.float32 else 1e300
    if 1 / limit**0.7 < largest < limit:
        return gram, 1.0
    check_finite(wide)
    top = max(float(part.abs().amax()) for part in _copies(wide, torch.float64, 1.0))
    if top == 0:
        return gram, 1.0
    factor = 2.0 ** min(-math.frexp(top)[1], 120)  # itself a float32
    return _accumulate(wide, dtype, factor), factor


def check_finite(matrix: Float[Tensor, "k n"]) -> None:
    """Raise a ValueError that counts what is nan or infinite."""
    dtype = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    bad = sum(int((~part.isfinite()).sum()) for part in _copies(matrix, dtype, 1.0))
    if bad:
        raise ValueError(f"{bad} of {matrix.numel()} weights are nan or infinite: no spectrum")


def _wide(matrix: Tensor) -> Tensor:
    if matrix.ndim != 2 or not matrix.numel():
        raise ValueError(f"expected a matrix with rows and columns, got shape {tuple(matrix.shape)}")
    matrix = matrix.detach()
    if matrix.device.type == "mps":
        matrix = matrix.cpu()
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _copies(wide: Tensor, dtype: torch.dtype, factor: float, size: int = _COPIED_BYTES) -> Iterator[Tensor]:
    """The matrix times a factor in blocks of columns; all of it where nothing has to be copied."""
    if wide.dtype == dtype and factor == 1:
        yield wide
        return
    for part in wide.split(max(1, size // (len(wide) * dtype.itemsize)), 1):
        yield part.to(torch.float32 if dtype.itemsize < 4 else dtype) * factor


def _accumulate(wide: Tensor, dtype: torch.dtype, factor: float) -> Tensor:
    k = len(wide)
    gram = torch.zeros(k, k, dtype=dtype, device=wide.device)
    step = max(64, math.ceil(k / _TRIANGLE))
    for part in _copies(wide, dtype, factor):
        for i in range(0, k, step):
            gram[i : i + step, : i + step].addmm_(part[i : i + step], part[: i + step].mT)
    return gram


def _gram_error(wide: Tensor, gram: Tensor, factor: float) -> Tensor:
    if gram.dtype == torch.float64:
        rows = gram.diagonal()
        roundoff = torch.finfo(torch.float64).eps / 2
        return 8 * (1 + wide.shape[1] / 8192) * roundoff * (rows.amax() * rows.sum()).sqrt()
    # A fixed seed: measuring is deterministic and leaves the generators alone. Nothing in a weight knows these vectors.
    x = torch.randn(_PROBES, len(wide), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(wide.device)
    expected = torch.zeros_like(x)
    for part in _copies(wide, torch.float64, factor, _COPIED_BYTES >> 4):
        expected.addmm_(x @ part, part.mT)
    lower = gram.tril()
    found = x @ lower.double()
    found += x @ lower.tril(-1).mT.double()
    return ((found - expected).square().sum() / float(chi2.ppf(_FAILURE, _PROBES))).sqrt()


def _solver_error(eigenvalues: Tensor) -> Tensor:
    roundoff = torch.finfo(eigenvalues.dtype).eps / 2
    return 8 * math.sqrt(len(eigenvalues)) * roundoff * eigenvalues[0].clamp_min(0).double()


def _roots(eigenvalues: Tensor, error: Tensor, factor: float, matrix: Tensor, method: str) -> Spectrum:
    lower, upper = (eigenvalues - error).clamp_min(0).sqrt(), (eigenvalues + error).clamp_min(0).sqrt()
    return _spectrum(eigenvalues.clamp_min(0).sqrt() / factor, lower / factor, upper / factor, matrix, method)


def _spectrum(values: Tensor, lower: Tensor, upper: Tensor, matrix: Tensor, method: str) -> Spectrum:
    """In float32 unless the matrix is float64; bounds outwards."""
    lower = lower.clamp_min(0)
    if matrix.dtype != torch.float64:
        values, low, high = values.float(), lower.float(), upper.float()
        infinity = torch.full_like(values, math.inf)
        lower = torch.where(low > lower, torch.nextafter(low, -infinity), low)
        upper = torch.where(high < upper, torch.nextafter(high, infinity), high)
    # Zero comes out as zero: rounding cannot make something of a matrix without elements.
    device = matrix.device
    return Spectrum.of(values.to(device), method=method, lower=lower.to(device), upper=upper.to(device))
