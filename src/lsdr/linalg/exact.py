"""Singular values of operators, exact, by the cheapest way that their structure allows."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lsdr.linalg.block_diagonal import BlockDiagonal, Grouped
from lsdr.linalg.circular import Circular, circular_singular_values
from lsdr.linalg.combine import Product, Scaled
from lsdr.linalg.dense import Dense
from lsdr.linalg.frobenius import core, inner_dimensions, magnitude, thin
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import Adjoint, LinearOperator
from lsdr.linalg.singular_values import singular_values
from lsdr.linalg.sliding_kernel import SlidingKernel
from lsdr.linalg.widen import rows
from lsdr.spectrum import Spectrum

Precision = Literal["float32", "float64"]
_EPS = 2.0**-52
_LARGEST_ENTRIES = 1 << 26  # 512 MiB in float64
_SMALL = 64


def exact_singular_values(operator: LinearOperator, precision: Precision = "float64") -> Spectrum:
    r"""All min(m, n) singular values of an operator, zeros included, with bounds that hold the rounding.

    By structure, computed from the factors as they are stored:

    - `Dense`: `singular_values` of the stored matrix. `Adjoint`, `Scaled`: those of the operator inside.
    - `LowRank` of rank r < min(m, n): two QRs and the r x r core, :math:`2 (m + n) r^2` and :math:`O(r^3)`
      multiplications. So too a `Hadamard` with :math:`r_1 r_2 < \min(m, n) / 2`, and a `Product` with an inner
      dimension below min(m, n) / 2.
    - `Kronecker`: products of the factors' values. `BlockDiagonal`, `Grouped`: those of all blocks.
    - `Circular`: frequency by frequency. A `Convolution` whose patches are disjoint and inside the image (kernel 1, or
      stride = kernel, without padding): those of the reshaped kernel, once per position. Groups: of all groups.
    - Whatever else is written out as a matrix, computed in float64 and held in the operator's type, for
      `singular_values`: up to 12 m n bytes and :math:`O(m n \min(m, n))` operations.

    Args:
        operator: The operator, of finite numbers.
        precision: Of large matrices, see `singular_values` and `circular_singular_values`; small ones and cores are
            decomposed in float64.

    Returns:
        The values, `method` naming the way; in float64, those of a `Dense` in its own type.

    Raises:
        ValueError: If a matrix of more than 2^26 entries would have to be written out, or entries are not finite.

    Example:
        >>> exact_singular_values(LowRank(torch.ones(4, 1), torch.ones(1, 9))).values
        tensor([6., 0., 0., 0.], dtype=torch.float64)
    """
    with full_precision(operator.device):
        return _values(operator, precision)


def _values(operator: LinearOperator, precision: Precision) -> Spectrum:
    least = min(operator.shape)
    match operator:
        case Dense():
            return singular_values(operator.weight, precision)
        case Adjoint():
            return _values(operator.of, precision)
        case Scaled():
            return _times(_values(operator.operator, precision), abs(operator.factor))
        case BlockDiagonal():
            return _union([_values(block, precision) for block in operator.blocks], least)
        case Grouped():
            return _of_blocks(operator.weight, precision, least)
        case Kronecker():
            return _outer(_values(operator.a, precision), _values(operator.b, precision), abs(operator.scale), least)
        case LowRank() if operator.up.shape[1] < least:
            return _of_low_rank(operator, magnitude(operator))
        case Hadamard() if 2 * operator.first.up.shape[1] * operator.second.up.shape[1] < least:
            return _of_low_rank(operator.low_rank(torch.float64), magnitude(operator))
        case Product() if 2 * min(inner := inner_dimensions(operator)) < least:
            return _of_low_rank(thin(operator, 1 + inner.index(min(inner))), magnitude(operator))
        case SlidingKernel() if operator.disjoint():
            # Patches side by side: A is R on each of them, and no other pixel is seen.
            spectrum = _values(Grouped(operator.weight, operator.groups), precision)
            return _union([spectrum] * math.prod(operator.positions), least)
        case Circular():
            return circular_singular_values(
                operator.weight,
                operator.positions if operator.transposed else operator.image,
                stride=operator.stride,
                dilation=operator.dilation,
                groups=operator.groups,
                transposed=operator.transposed,
                precision=precision,
            )
        case SlidingKernel() if operator.groups > 1:
            return _union([_values(operator.group(i), precision) for i in range(operator.groups)], least)
    return _written_out(operator, precision)


def _of_blocks(blocks: Tensor, precision: Precision, least: int) -> Spectrum:
    """All blocks of shape (block, m, n): small ones in one call."""
    if min(blocks.shape[1:]) > _SMALL:
        return _union([singular_values(block, precision) for block in blocks], least)
    wide = blocks.double()
    if not bool(wide.isfinite().all()):
        raise ValueError(f"{int((~wide.isfinite()).sum())} of {wide.numel()} entries are nan or infinite: no spectrum")
    values = torch.linalg.svdvals(wide).flatten().sort(descending=True).values
    error = 4 * sum(blocks.shape[1:]) * _EPS * float(values[0])
    return _bounded(values, error, "SVD in float64", least)


def _of_low_rank(operator: LowRank, size: float) -> Spectrum:
    """The values of the core, and exact zeros; `size` is what was rounded on the way to it."""
    values = torch.linalg.svdvals(core(operator))
    error = 4 * (sum(operator.shape) + len(values)) * _EPS * max(size, magnitude(operator))
    return _bounded(values, error, "low rank, QR of both factors", min(operator.shape))


def _written_out(operator: LinearOperator, precision: Precision) -> Spectrum:
    m, n = operator.shape
    if m * n > _LARGEST_ENTRIES:
        raise ValueError(
            f"the exact spectrum of {operator!r} needs it written out as a matrix of {m * n:.2g} entries, more than "
            f"{_LARGEST_ENTRIES:.2g}: take lanczos for its norm, spectral_density for the shape of its spectrum, or a "
            "smaller size"
        )
    matrix = rows(operator, 0, m).to(operator.dtype)
    spectrum = singular_values(matrix, precision)
    error = 4 * (m + n) * _EPS * magnitude(operator)
    if operator.dtype == torch.float32:
        error += 2.0**-24 * float(torch.linalg.vector_norm(matrix.double()))
    lower, upper = _bounds(spectrum)
    method = f"written out, {spectrum.method}"
    lower, upper = (lower.double() - error).clamp_min(0), upper.double() + error
    return Spectrum(spectrum.values.double(), "singular_values", method, lower, upper)


def _bounded(values: Tensor, error: float, method: str, least: int) -> Spectrum:
    bounds = (values - error).clamp_min(0), values + error
    values, lower, upper = (F.pad(found, (0, least - len(found))) for found in (values, *bounds))
    return Spectrum(values, "singular_values", method, lower, upper)


def _bounds(spectrum: Spectrum) -> tuple[Tensor, Tensor]:
    lower, upper = spectrum.lower, spectrum.upper
    return spectrum.values if lower is None else lower, spectrum.values if upper is None else upper


def _times(spectrum: Spectrum, factor: float) -> Spectrum:
    lower, upper = (bound.double() * factor for bound in _bounds(spectrum))
    values = spectrum.values.double() * factor
    return Spectrum(values, "singular_values", spectrum.method, lower * (1 - 2 * _EPS), upper * (1 + 2 * _EPS))


def _union(spectra: list[Spectrum], least: int) -> Spectrum:
    """All values of all, and zeros up to as many as the operator has: its blocks may be of lower rank than it could."""
    merged = []
    for parts in ([s.values for s in spectra], *zip(*map(_bounds, spectra), strict=True)):
        values = torch.cat([part.double() for part in parts]).sort(descending=True).values
        merged.append(F.pad(values, (0, least - len(values))))
    methods = sorted({spectrum.method for spectrum in spectra})
    return Spectrum(merged[0], "singular_values", "; ".join(methods), merged[1], merged[2])


def _outer(a: Spectrum, b: Spectrum, scale: float, least: int) -> Spectrum:
    (low_a, up_a), (low_b, up_b) = _bounds(a), _bounds(b)
    values, lower, upper = (
        scale * torch.outer(x.double(), y.double()).flatten().sort(descending=True).values
        for x, y in ((a.values, b.values), (low_a, low_b), (up_a, up_b))
    )
    lower, upper = lower * (1 - 4 * _EPS), upper * (1 + 4 * _EPS)
    method = f"Kronecker, {a.method}" if a.method == b.method else f"Kronecker, {a.method} and {b.method}"
    return _union([Spectrum(values, "singular_values", method, lower, upper)], least)
