"""Block power iteration with Rayleigh-Ritz: one step for many layers whose vectors have one length."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class PowerStep(NamedTuple):
    """What a step leaves: the next vectors, and three small matrices a layer from which all results follow."""

    vectors: Float[Tensor, "layers k n"]
    """An orthonormal basis of the products, one vector a row."""
    projected: Float[Tensor, "layers k k"]
    """V A'A V', V the vectors before the step."""
    triangle: Float[Tensor, "layers k k"]
    """R of A'A V' = Q R: its singular values are those of A'A on the vectors."""
    error: Float[Tensor, "layers k k"]
    """E E' of E = V A'A - (V A'A V') V: the residuals, in any basis of the vectors."""


@dataclass(frozen=True)
class Ritz:
    """Results of a step, on the CPU in float64."""

    squares: Float[Tensor, "layers k"]
    """Lower bounds of the k largest squared singular values, descending."""
    residual: Float[Tensor, "layers k"]
    """|A'A v - theta v| / theta of the Ritz pairs of the vectors before the step."""
    rotation: Float[Tensor, "layers k k"]
    """What turns the new basis into approximate singular vectors: `rotation @ vectors`, largest first."""


def block_power_step(vectors: Float[Tensor, "layers k n"], products: Float[Tensor, "layers k n"]) -> PowerStep:
    r"""Advance orthonormal vectors V by their products Y = V A'A, without a synchronisation.

    .. math:: V' = \operatorname{orth}(V A^T A)

    A layer whose products vanish keeps its vector if there is one, and gets an orthonormal completion if there are
    several: vectors are never zero and can pick up what grows later.

    Source: Saad, *Numerical Methods for Large Eigenvalue Problems* (2011), algorithm 5.2.

    Args:
        vectors: Orthonormal, one a row.
        products: A'A of each.
    """
    if vectors.shape[1] == 1:
        norm = torch.linalg.vector_norm(products, dim=-1, keepdim=True)
        theta = (vectors * products).sum(-1, keepdim=True)
        error = torch.linalg.vector_norm(torch.addcmul(products, vectors, theta, value=-1), dim=-1, keepdim=True)
        positive = norm > 0
        return PowerStep(
            torch.where(positive, products / torch.where(positive, norm, 1), vectors), theta, norm, error.square()
        )
    q, triangle = torch.linalg.qr(products.mT)
    projected = vectors @ products.mT
    error = products - projected.mT @ vectors
    return PowerStep(q.mT, projected, triangle, error @ error.mT)


def ritz(
    projected: Float[Tensor, "layers k k"], triangle: Float[Tensor, "layers k k"], error: Float[Tensor, "layers k k"]
) -> Ritz:
    r"""Values, residuals and rotation from the small matrices of a step; where they are not finite, NaN.

    The values are the singular values of :math:`A^T A V`, which lie between the Ritz values of V and the squared
    singular values of A: what the step gained is in them already.
    """
    projected, triangle, error = projected.double(), triangle.double(), error.double()
    if projected.shape[-1] == 1:
        squares, theta, variance = triangle[..., 0].abs(), projected[..., 0], error[..., 0]
        residual = torch.where(squares == 0, 0, variance.clamp(min=0).sqrt() / theta)
        return Ritz(squares, residual, torch.ones_like(triangle))
    finite = (projected.isfinite() & triangle.isfinite() & error.isfinite()).flatten(1).all(1)[:, None, None]
    left, squares, _ = torch.linalg.svd(torch.where(finite, triangle, 0))
    symmetric = torch.where(finite, (projected + projected.mT) / 2, 0)
    theta, basis = (part.flip(-1) for part in torch.linalg.eigh(symmetric))
    variance = torch.einsum("lij,lik,lkj->lj", basis, torch.where(finite, error, 0), basis)
    # Beyond the rank there is only rounding, and nothing to be relative to.
    vanishing = theta <= theta[:, :1].clamp(min=0) * 1e-12
    residual = torch.where(vanishing, 0, variance.clamp(min=0).sqrt() / torch.where(vanishing, 1, theta))
    bad = ~finite[..., 0]
    return Ritz(squares.masked_fill(bad, torch.nan), residual.masked_fill(bad, torch.nan), left.mT)
