"""The largest singular value, to more digits than a constraint needs: of a stored matrix, or of an operator."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.singular_values import lower_gram

# Columns widened to float64 at a time.
_CHUNK = 8192
# An operator of at most so many inputs or outputs is taken as a matrix.
_DENSE = 512
# A Gram matrix in float32 gives the largest value to 1e-5 (its eigenvalues err by 8 sqrt(n) roundoffs at most) and
# takes half the time, where the matrix is not so small that calling costs more than computing.
_SINGLE, _SINGLE_ERROR = 5e-4, 2e-5
SMALL = 1 << 16
# Vectors that are followed from one call to the next, steps of a Krylov space, and rounds before giving up.
_FOLLOWED, _DEPTH, _ROUNDS = 4, 4, 60


def largest_of_blocks(blocks: Float[Tensor, "g m n"], tolerance: float) -> Float64[Tensor, ""]:
    r"""The largest singular value of block-diagonal blocks, never below the truth.

    .. math:: \sigma = \lambda_{\max}(B B^\top)^{1/2}, \qquad
        \lambda_{\max}(G) \le \operatorname{tr}(G^p)^{1/p} \le n^{1/p} \lambda_{\max}(G)

    The Gram matrix on the short side is taken in float64, so that rounding is of the order of 1e-13; on a CPU, for a
    tolerance of 5e-4 or more, that of one large block in float32, and 2e-5 added. On a CPU its eigenvalues are found.
    On an accelerator, where those are slow, the second line's bound is, with p a power of two so large that it is at
    most `tolerance` / 4 too large: squarings alone, without a synchronisation.

    Cost: m^2 n + m^3 for m <= n. No start vector and nothing to warm: the value does not lag behind the weights.

    Args:
        blocks: Matrices of one shape, any floating type.
        tolerance: Relative.

    Returns:
        Shape (), not finite if the blocks are not.
    """
    with full_precision(blocks.device):
        wide = blocks if blocks.shape[1] <= blocks.shape[2] else blocks.mT
        plain = len(wide) == 1 and wide.device.type == "cpu" and wide.dtype != torch.float64
        if plain and wide.numel() > SMALL and tolerance >= _SINGLE:
            return _largest_in_single(wide[0])
        gram = gram_of_blocks(wide)
        if gram.device.type == "cpu":
            if not bool(gram.isfinite().all()):  # LAPACK would raise
                return gram.new_tensor(math.nan)
            largest: Tensor = torch.linalg.eigvalsh(gram)[:, -1].amax()
            return largest.clamp_min(0).sqrt()
        return largest_by_squaring(gram, tolerance)


def _largest_in_single(wide: Float[Tensor, "m n"]) -> Float64[Tensor, ""]:
    """The largest singular value from a float32 Gram matrix, with its error on top; NaN if the matrix is not finite."""
    try:
        gram, factor = lower_gram(wide, torch.float32)
    except ValueError:
        return torch.tensor(math.nan, dtype=torch.float64)
    largest: Tensor = torch.linalg.eigvalsh(gram)[-1].double().clamp_min(0).sqrt()
    return largest / factor * (1 + _SINGLE_ERROR)


def gram_of_blocks(wide: Float[Tensor, "g m n"]) -> Float64[Tensor, "g m m"]:
    """W W' of each block in float64, widened some columns at a time; on the CPU where the device has no float64."""
    wide = wide.cpu() if wide.device.type == "mps" else wide
    gram = torch.zeros(len(wide), wide.shape[1], wide.shape[1], dtype=torch.float64, device=wide.device)
    for part in wide.split(_CHUNK, 2):
        columns = part.double()
        gram.baddbmm_(columns, columns.mT)
    return gram


def largest_by_squaring(gram: Float64[Tensor, "g n n"], tolerance: float) -> Float64[Tensor, ""]:
    """Upper bound, at most tolerance / 4 too large, of the root of the largest eigenvalue; see `largest_of_blocks`."""
    tiny = torch.finfo(torch.float64).tiny
    squarings = max(1, math.ceil(math.log2(max(2 * math.log(gram.shape[-1]) / tolerance, 2))))
    traces = gram.diagonal(dim1=1, dim2=2).sum(1)
    power = gram / traces.clamp_min(tiny)[:, None, None]
    logarithm = traces.clamp_min(tiny).log()
    for number in range(1, squarings + 1):
        power = power @ power
        trace = power.diagonal(dim1=1, dim2=2).sum(1)
        power = power / trace.clamp_min(tiny)[:, None, None]
        logarithm = logarithm + trace.clamp_min(tiny).log() / 2**number
    values = torch.where(traces == 0, 0, (logarithm / 2).exp())
    return torch.where(traces.isfinite().all(), values.amax(), math.nan)


def largest_of_operator(
    operator: LinearOperator, warm: Float[Tensor, "k n"] | None, tolerance: float, seed: int
) -> tuple[float, Float[Tensor, "k n"] | None]:
    r"""The largest singular value of an operator that is too large for a matrix, by block Krylov spaces.

    Each round takes the space of :math:`S, A^\top A S, \ldots` with S the vectors of the last round or call and a
    random one, which finds what the others have no part of, and its Rayleigh-Ritz pairs. Rounds end when the leading
    pair's residual, or four times what the round has added to its value, is below tolerance / 8; that is added. (The
    leading values of convolutions lie close together: their vectors converge long after their values.) So the value is
    an estimate, from both sides to about the tolerance, and no certificate.

    Operators of at most 512 inputs or outputs are taken as matrices instead, exactly.

    Args:
        operator: What to measure.
        warm: Vectors returned by an earlier call for much the same operator, or None.
        tolerance: Relative.
        seed: Of the random vectors.

    Returns:
        The value, and the vectors for the next call (None where none are needed). NaN and None if the operator is not
        finite.

    Raises:
        RuntimeError: If no round satisfies the tolerance.
    """
    if min(operator.shape) <= _DENSE:
        return float(largest_of_blocks(_short_matrix(operator)[None], tolerance)), None
    generator = torch.Generator().manual_seed(seed)
    with full_precision(operator.device):
        start = warm
        for _ in range(_ROUNDS):
            fresh = torch.randn(1 if start is not None else _FOLLOWED + 1, operator.shape[1], generator=generator)
            fresh = fresh.to(operator.device, operator.dtype)
            start = fresh if start is None else torch.cat([start.to(fresh), fresh])
            values, start, slack = _krylov(operator, start)
            largest = float(values[0])
            if not math.isfinite(largest):
                return math.nan, None
            if slack <= tolerance / 4 * largest or largest <= 0:
                return math.sqrt(max(largest, 0.0) + slack), start
    raise RuntimeError(
        f"the largest singular value of {operator!r} did not settle to {tolerance:g} in {_ROUNDS} rounds "
        f"(last {slack / largest:.1g}): allow a larger tolerance"
    )


def _krylov(
    operator: LinearOperator, start: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"], float]:
    """Leading eigenvalues and vectors of A'A in the block Krylov space of `start`, and how far the first may be off."""
    basis: list[Tensor] = []
    images: list[Tensor] = []
    block = start
    for _ in range(_DEPTH):
        for _ in range(2):  # once would leave rounding in the direction of what there is
            for known in basis:
                block = block - (block @ known.mT) @ known
            block = torch.linalg.qr(block.mT).Q.mT
        basis.append(block)
        images.append(operator.gram(block))
        block = images[-1]
    space, image = torch.cat(basis), torch.cat(images)
    projected = space @ image.mT
    if not bool(projected.isfinite().all()):
        nothing = torch.full((len(start),), math.nan)
        return nothing, start, math.nan
    values, vectors = torch.linalg.eigh((projected + projected.mT) / 2)
    values, vectors = values.flip(0)[:_FOLLOWED], vectors.flip(1)[:, :_FOLLOWED]
    leading = vectors.mT @ space
    residual = (vectors[:, 0] @ image - values[0] * leading[0]).norm()
    gained = values[0] - projected[0, 0]  # over the first vector of the start
    return values, leading, float(torch.minimum(residual, 4 * gained.clamp_min(0)))


def _short_matrix(operator: LinearOperator) -> Float[Tensor, "m n"]:
    """The operator or its transpose as a matrix, from products with the fewer unit vectors."""
    m, n = operator.shape
    with full_precision(operator.device):
        if n <= m:
            return operator.matvec(torch.eye(n, dtype=operator.dtype, device=operator.device))
        return operator.adjoint(torch.eye(m, dtype=operator.dtype, device=operator.device))
