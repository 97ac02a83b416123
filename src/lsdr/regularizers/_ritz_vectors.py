"""Vectors that come near an operator's extreme eigenvalues or singular values."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers._operator_estimates import StepOperator, dot, per_example


def ritz_vectors(
    operator: StepOperator,
    start: Float[Tensor, "k n *dims"],
    iterations: int,
    of: Literal["largest", "smallest", "singular"],
) -> tuple[Float[Tensor, "k n *dims"], Float[Tensor, "k n *dims"]]:
    r"""Vectors u, v whose u'Jv come near J's extreme values: Rayleigh-Ritz in a block Krylov space, without graph.

    Of :math:`S = (J + J')/2` ("largest", "smallest"), where u = v, or of J'J ("singular"), where u = Jv / |Jv|. The
    space is spanned by `iterations` blocks; J is applied to each, J' to each but the last.

    The first block is `start` with, for the largest, the estimate D(x) added to its first vector: what a
    denoiser keeps of x it keeps when x moves along it, exactly so without biases, D = J_D x (Mohan et al. 2020).
    On a small trained UNet three iterations so find 96 to 99 % of the largest eigenvalue, without it 72 to 93 %.
    """
    basis: list[Tensor] = []
    images: list[Tensor] = []
    block = list(start)
    if of != "smallest":
        block[0] = _orthonormal(block[0], []) + _orthonormal(operator.estimate(), [])
    for iteration in range(iterations):
        for vector in block:
            basis.append(_orthonormal(vector, basis))
        new = basis[-len(block) :]
        applied = [operator.apply(vector) for vector in new]
        images += applied
        if iteration + 1 < iterations and of == "singular":
            block = [operator.adjoint(image) for image in applied]
        elif iteration + 1 < iterations:
            block = [(image + operator.adjoint(vector)) / 2 for vector, image in zip(new, applied, strict=True)]
    operator.free()
    q, w = torch.stack(basis, 1).flatten(2), torch.stack(images, 1).flatten(2)
    with torch.autocast(q.device.type, enabled=False):
        small = w @ w.mT if of == "singular" else (q @ w.mT + w @ q.mT) / 2
        # What is not finite has no eigenvectors; the form that is taken with these is not finite either.
        _, turns = torch.linalg.eigh(torch.nan_to_num(small, 0.0, 0.0, 0.0))
        turns = turns[:, :, : len(start)] if of == "smallest" else turns[:, :, -len(start) :].flip(-1)
        v = (turns.mT @ q).unflatten(2, start.shape[2:]).transpose(0, 1)
        u = v if of != "singular" else (turns.mT @ w).unflatten(2, start.shape[2:]).transpose(0, 1)
    if of == "singular":
        u = torch.stack([_orthonormal(each, []) for each in u])
    return u, v


def _orthonormal(vector: Tensor, basis: list[Tensor]) -> Tensor:
    """The part of a vector outside the basis, of unit length; zero where there is only rounding left."""
    before = vector.flatten(1).norm(dim=1)
    for _ in range(2):
        for each in basis:
            vector = vector - per_example(dot(each, vector), vector) * each
    after = vector.flatten(1).norm(dim=1)
    rounding = 100 * torch.finfo(vector.dtype).eps
    scale = torch.where(after > rounding * before, 1 / after, 0.0)
    return vector * per_example(scale, vector)
