"""Block Krylov subspaces with Rayleigh-Ritz: from a few vectors to the top singular vectors in few products."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# Vectors of a basis: with their products they are the memory that a layer takes while it is refined.
_BASIS = 64


def krylov_ritz(
    product: Callable[[Tensor, bool], tuple[Tensor, bool]],
    start: Float[Tensor, "k n"],
    *,
    tolerance: float = 0.02,
    growth: float = 1e-4,
    depth: int | None = None,
    shared: bool = False,
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"], Float[Tensor, "k n"]]:
    r"""The k largest Ritz pairs of A'A on the span of :math:`V, A^TA V, (A^TA)^2 V, \dots`.

    The basis is kept and orthogonalised in full, three times, since a block that lacks rank gets made-up directions. It
    ends when the largest value's residual is within the tolerance and no value has grown by more than `growth` in a
    step, when the subspace is exhausted, or at full depth.

    Source: Saad, *Numerical Methods for Large Eigenvalue Problems* (2011), section 6.6, here on A'A.

    Args:
        product: A'A of each row, and whether to stop after it: it is told whether this side wants to stop, so that
            several processes that share the product can agree (a sum of flags beside the summed product).
        start: Orthonormal rows, k <= n.
        tolerance: Of the largest value's residual, relative to the squared singular value.
        growth: Relative growth of the values in a step, below which they count as settled.
        depth: Products of A'A with k vectors, at most; None for a basis of 64 vectors, but at least 8 products.
        shared: Whether other processes take part in the products: then all go on until the next one says to stop.

    Returns:
        The Ritz values (of A'A, lower bounds of its largest eigenvalues), their residuals relative to them, both on the
        CPU in float64, and the Ritz vectors; largest first.
    """
    k, n = start.shape
    depth = max(8, _BASIS // k) if depth is None else depth
    basis, products = start, start.new_zeros(0, n)
    block, stop = start, False
    before = torch.zeros(k, dtype=torch.float64)
    while True:
        new, stop = product(block, stop)
        products = torch.cat([products, new])
        projected = (basis @ products.mT).double().cpu()
        theta, coordinates = torch.linalg.eigh((projected + projected.mT) / 2)
        theta, coordinates = theta.flip(-1)[:k], coordinates.flip(-1)[:, :k].mT
        turn = coordinates.to(start)
        vectors, images = turn @ basis, turn @ products
        errors = (images - theta.to(start)[:, None] * vectors).norm(dim=1).double().cpu()
        vanishing = theta <= theta[0].clamp(min=0) * 1e-12
        residual = torch.where(vanishing, 0, errors / torch.where(vanishing, 1, theta))
        settled = bool((theta - before <= growth * theta.clamp(min=0)).all())
        before = theta
        if stop or len(basis) >= n or len(basis) >= depth * k:
            break
        stop = bool(residual[0] <= tolerance) and settled
        if stop and not shared:
            break
        block = new
        for _ in range(3):
            block = block - (block @ basis.mT) @ basis
            block = torch.linalg.qr(block.mT).Q.mT
        block = block[: n - len(basis)]
        basis = torch.cat([basis, block])
    return theta.clamp(min=0), residual, vectors
