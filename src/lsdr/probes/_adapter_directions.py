"""Where an adapter turns the largest directions of the weight that it is added to."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.directions import INTRUDER_COSINE, TOP, Directions, above_rounding, left_vectors
from lsdr.linalg.krylov import krylov_ritz
from lsdr.linalg.lanczos import draw
from lsdr.linalg.operator import LinearOperator

# Matrices of a side up to this are decomposed whole: as fast as a search, and exact.
_SMALL = 256
# So many of a large base's largest directions are kept; the others are only found for a direction that is none of them.
_KEPT = 2 * TOP
_TOLERANCE = 1e-3


@dataclass(eq=False)
class BaseDirections:
    """A base's largest singular value and its left singular vectors, found once.

    Attributes:
        operator: The base.
        sigma: Its largest singular value, 0 of zeros.
        largest: Left singular vectors, one a column: all of a small matrix, else the largest.
        every: All of them in half precision on the CPU, once they were needed.
    """

    operator: LinearOperator
    sigma: float
    largest: Float[Tensor, "m k"]
    every: Tensor | None

    @classmethod
    def of(cls, operator: LinearOperator) -> "BaseDirections":
        """Find them."""
        if min(operator.shape) <= _SMALL:
            matrix = operator.matrix()
            if not bool(matrix.any()):
                return cls(operator, 0.0, matrix.new_zeros(operator.shape[0], 0), None)
            spectrum, left = left_vectors(matrix)
            left = left.to(operator.dtype)
            return cls(operator, float(spectrum.values[0]), left, left)
        values, left, _ = largest_directions(operator, _KEPT, None)
        return cls(operator, float(values[0]), left, None)

    def compare(
        self, changed: LinearOperator, start: Float[Tensor, "k n"] | None
    ) -> tuple[Directions, Float[Tensor, "k n"] | None]:
        """The largest directions of a changed weight against the base's.

        Args:
            changed: Base and adapter.
            start: Where to start from: what the last comparison gave.
        """
        if min(changed.shape) <= _SMALL:
            spectrum, left = left_vectors(changed.matrix())
            values, right = spectrum.values, None
        else:
            values, left, right = largest_directions(changed, TOP, start)
        top = min(TOP, above_rounding(values), left.shape[1])
        left, values = left[:, :top].to(changed.dtype), values[:top]
        nearest = _nearest(left, self.largest)
        if bool((nearest < INTRUDER_COSINE).any()) and self.every is not self.largest:
            if self.every is None:
                self.every = left_vectors(self.operator.matrix())[1].half().cpu()
            nearest = torch.maximum(nearest, _nearest(left.float().cpu(), self.every.float()).to(nearest))
        gains = self.operator.adjoint(left.mT).norm(dim=-1).cpu() / values.cpu()
        return Directions(nearest.cpu(), gains), right


def largest_directions(
    operator: LinearOperator, count: int, start: Float[Tensor, "k n"] | None
) -> tuple[Float[Tensor, "k"], Float[Tensor, "m k"], Float[Tensor, "k n"]]:
    """The largest singular values (on the CPU), left singular vectors as columns and right ones as rows.

    Found in block Krylov spaces, of which the last right vectors are a good start.
    """
    n = operator.shape[1]
    if start is None or start.shape != (count, n):
        generator = torch.Generator().manual_seed(0)  # the same each time, and nothing drawn from the run's own
        start = draw(count * n, operator, generator).view(count, n)
    start = torch.linalg.qr(start.to(operator.device, operator.dtype).mT).Q.mT

    def product(vectors: Tensor, stop: bool) -> tuple[Tensor, bool]:
        return operator.gram(vectors), stop

    squares, _, right = krylov_ritz(product, start, tolerance=_TOLERANCE)
    left = operator.matvec(right)
    left = left / left.norm(dim=1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)
    return squares.sqrt(), left.mT, right


def _nearest(left: Float[Tensor, "m top"], base: Float[Tensor, "m k"]) -> Float[Tensor, "top"]:
    if not base.shape[1]:
        return left.new_zeros(left.shape[1])
    cosines: Tensor = (left.mT @ base).abs().amax(1)
    return cosines.clamp_max(1)
