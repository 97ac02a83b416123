"""The ends and the density of the spectra of several symmetric operators at once, from products alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lsdr.linalg.ritz_bounds import rounding

Products = Callable[[Float[Tensor, "b k d"]], Float[Tensor, "b k d"]]


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """Approximate eigenpairs of b symmetric operators; numbers in float64 on the CPU."""

    values: Float[Tensor, "b k"]
    """Ritz values, descending; those from the top bound their eigenvalues from below, those from the bottom from above,
    but for rounding."""
    residuals: Float[Tensor, "b k"]
    """|S v - theta v|: there is an eigenvalue as near to theta as that."""
    vectors: Float[Tensor, "b k d"]
    """Their orthonormal vectors, as rows, in the type of the start."""
    noise: Float[Tensor, " b"]
    """How well any value is known: how far the products are from symmetric on the whole basis (spectral norm), which
    shows what difference quotients are off, and 8 u sqrt(d) of the largest value for rounding."""
    nodes: Float[Tensor, "b m"]
    """All Ritz values, ascending."""
    weights: Float[Tensor, "b m"]
    """What share of the eigenvalues each stands for, as the start sees them (1 in all): the block Gauss quadrature of
    p random directions, exact for polynomials of degree below 2 x steps but for these; see `batched_quadrature`."""
    converged: Bool[Tensor, " b"]
    """Whether all residuals came below the tolerance (or the noise), or the basis is complete."""
    steps: int
    """Products with the block."""


def batched_ritz(
    products: Products,
    start: Float[Tensor, "b p d"],
    *,
    largest: int = 1,
    smallest: int = 0,
    tolerance: Float[Tensor, " b"] | float = 1e-3,
    steps: int = 30,
) -> RitzPairs:
    r"""Largest and smallest eigenvalues of b symmetric operators by block Lanczos with Rayleigh-Ritz.

    On the span of :math:`V, SV, S^2V, \dots` for the block V of p vectors, all b operators in step, so that one call of
    `products` serves them all. The basis is orthogonalised in full, three times, since a block that lacks rank gets
    made-up directions. A multiple eigenvalue is found p times for sure, and oftener only if rounding brings it back or
    the space is exhausted, which no residual tells: the values are then of lower rank than they stand for, bounds
    still. A narrow block needs fewer products, half as many for p = k / 4 as for p = k (k values of a trained network's
    Jacobian, at any noise level). Ends when every wanted residual is below tolerance times the largest |theta| (or
    twice the noise of the products) and no wanted value moved by more than a tenth of that in the last step; when the
    basis is complete; or after `steps`.

    Cost: steps x b x p products. Memory: twice that many vectors. The small problems are solved in float64.

    Source: Saad, *Numerical Methods for Large Eigenvalue Problems* (2011), sections 6.3 to 6.6 and 3.2 (residuals).

    Args:
        products: S v for (b, k, d) vectors.
        start: Linearly independent rows for each operator, p <= d; random, or eigenvectors orthogonal to all of them
            are not seen.
        largest: How many of the largest eigenvalues.
        smallest: How many of the smallest.
        tolerance: Relative, one for all or one for each.
        steps: Products with the block, at most.

    Returns:
        The largest, then the smallest.

    Raises:
        ValueError: If the numbers are out of range or products are not finite.

    Example:
        >>> matrices = torch.diag_embed(torch.tensor([[3.0, -1.0, 2.0], [5.0, 4.0, 0.0]]))
        >>> found = batched_ritz(lambda v: v @ matrices, torch.randn(2, 1, 3), largest=2, smallest=1)
        >>> found.values.round(decimals=3)
        tensor([[ 3.,  2., -1.],
                [ 5.,  4.,  0.]], dtype=torch.float64)
    """
    count, width, d = start.shape
    if not (1 <= width <= d and 0 <= largest <= d and 0 <= smallest <= d and largest + smallest and steps >= 1):
        raise ValueError(
            f"expected a block of 1 to {d} vectors, up to {d} values from either end and at least one step, got "
            f"{width}, {largest}, {smallest} and {steps}"
        )
    wanted = torch.as_tensor(tolerance, dtype=torch.float64).cpu().expand(count)[:, None]
    # Enough steps for as many values as are wanted.
    steps = max(steps, -(-max(largest, smallest) // width))
    block = torch.linalg.qr(start.mT).Q.mT
    basis, images = block, block.new_zeros(count, 0, d)
    before = None
    done = 0
    while True:
        images = torch.cat([images, products(block)], dim=1)
        done += 1
        projected = (basis @ images.mT).double().cpu()
        if not bool(projected.isfinite().all()):
            raise ValueError("products with the operator are nan or infinite: no spectrum")
        size = basis.shape[1]
        full = size >= d
        if size >= max(largest, smallest):
            theta, turn = torch.linalg.eigh((projected + projected.mT) / 2)
            weights = turn[:, :width].square().mean(1)
            scale = theta.abs().amax(1)
            noise = torch.linalg.matrix_norm((projected - projected.mT) / 2, 2)
            noise = noise + rounding((d, d), basis.dtype) * scale
            keep = [*range(size - 1, size - 1 - largest, -1), *range(smallest - 1, -1, -1)]
            values, turn = theta[:, keep], turn[:, :, keep].mT.to(basis)
            vectors = turn @ basis
            residuals = (turn @ images - values.to(basis)[..., None] * vectors).norm(dim=2).double().cpu()
            allowed = torch.maximum(wanted * scale[:, None], 2 * noise[:, None])
            converged = (residuals <= allowed).all(1)
            if before is not None:
                settled = ((values - before).abs() <= allowed / 10).all(1)
                if full or bool((converged & settled).all()):
                    break
            elif full:
                break
            before = values
        if full or done >= steps:
            break
        block = images[:, size - block.shape[1] :]
        for _ in range(3):
            block = block - (block @ basis.mT) @ basis
            block = torch.linalg.qr(block.mT).Q.mT
        block = block[:, : d - size]
        basis = torch.cat([basis, block], dim=1)
    return RitzPairs(values, residuals, vectors, noise, theta, weights, converged | full, done)


def batched_quadrature(
    products: Products, start: Float[Tensor, "b p d"], *, steps: int = 30
) -> tuple[Float[Tensor, "b p m"], Float[Tensor, "b p m"]]:
    r"""The density of states of b symmetric operators by stochastic Lanczos quadrature, one rule for each start.

    .. math:: \frac1d \operatorname{tr} f(S) \approx \frac1p \sum_{l=1}^p \sum_j \tau_{lj}^2\, f(\theta_{lj})

    Lanczos with full orthogonalisation from every start on its own; theta are the eigenvalues of its tridiagonal
    matrix, tau the first elements of their vectors. Exact for polynomials of degree below 2 x steps, but for the random
    starts. Once a start's space is exhausted, what follows has no weight, since nothing couples it to the start.

    Cost: steps x b x p products. Memory: as many vectors.

    Source: Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38 (2017), algorithm 1, with Gaussian probes.

    Args:
        products: S v for (b, k, d) vectors.
        start: Gaussian rows, none of them zero.
        steps: Of Lanczos; as many nodes, but no more than d.

    Returns:
        Nodes and their weights (1 in all for each start), in float64 on the CPU.

    Raises:
        ValueError: If there is no step or products are not finite.

    Example:
        >>> nodes, weights = batched_quadrature(lambda v: 2 * v, torch.randn(1, 1, 5), steps=3)
        >>> (nodes * weights).sum(), weights.sum()
        (tensor(2., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    count, probes, d = start.shape
    steps = min(steps, d)
    q = start / start.norm(dim=2, keepdim=True)
    basis = start.new_zeros(count, probes, steps, d)
    diagonal, off = torch.zeros(2, count, probes, steps, dtype=torch.float64)
    for k in range(steps):
        basis[:, :, k] = q
        z = products(q)
        for repeat in range(2):  # twice is enough (Parlett, "The Symmetric Eigenvalue Problem", section 6.9)
            components = torch.einsum("bpkd,bpd->bpk", basis[:, :, : k + 1], z)
            z = z - torch.einsum("bpkd,bpk->bpd", basis[:, :, : k + 1], components)
            if repeat == 0:
                diagonal[:, :, k] = components[:, :, k].double().cpu()
        norm = z.norm(dim=2)
        off[:, :, k] = norm.double().cpu()
        q = torch.where(norm > 0, 1 / norm, 0)[..., None] * z
    if not bool(diagonal.isfinite().all() and off.isfinite().all()):
        raise ValueError("products with the operator are nan or infinite: no density")
    tridiagonal = torch.diag_embed(diagonal) + torch.diag_embed(off[..., :-1], -1)
    nodes, vectors = np.linalg.eigh(tridiagonal.numpy())  # reads the lower triangle
    return torch.from_numpy(nodes), torch.from_numpy(vectors[..., 0, :]).square()
