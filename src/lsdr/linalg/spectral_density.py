"""How the squared singular values of an operator are distributed, from products alone."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.lanczos import draw, exponent_of
from lsdr.linalg.operator import Adjoint, LinearOperator


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """How the values of an operator are distributed, as one quadrature rule a probe.

    Of `spectral_density` these are the min(m, n) squared singular values, of others what they say.
    """

    nodes: Float[Tensor, "probes steps"]
    """Where the rules put their mass, in the values' unit: that of the squared operator for squared singular values."""
    weights: Float[Tensor, "probes steps"]
    """The mass, 1 in all for each probe."""

    def cdf(self, x: Float[Tensor, "*grid"]) -> Float[Tensor, "*grid"]:
        """Share of the values that are at most x."""
        return self._average((self.nodes[..., None] <= x.flatten()).double(), x)

    def density(self, x: Float[Tensor, "*grid"], width: float) -> Float[Tensor, "*grid"]:
        """Density at x, smoothed by a Gaussian of the given standard deviation; it integrates to 1."""
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        distance = (x.flatten() - self.nodes[..., None]) / width
        return self._average((-distance.square() / 2).exp() / (width * math.sqrt(2 * math.pi)), x)

    def mean(self, power: int = 1) -> tuple[float, float]:
        """Average of the values to a power, and its standard error over the probes (nan for one).

        Exact quadrature for powers below 2 x steps: the error is that of the random probes alone.
        """
        values = (self.nodes**power * self.weights).sum(1)
        return values.mean().item(), (values.std().item() if len(values) > 1 else math.nan) / len(values) ** 0.5

    def _average(self, of_nodes: Tensor, x: Tensor) -> Tensor:
        return (of_nodes * self.weights[..., None]).sum(1).mean(0).view_as(x)


def spectral_density(
    operator: LinearOperator, *, steps: int = 40, probes: int = 8, generator: torch.Generator | None = None
) -> SpectralDensity:
    r"""Density of the squared singular values by stochastic Lanczos quadrature.

    .. math:: \frac1K \sum_k f(\sigma_k^2) \approx \frac{1}{p} \sum_{l=1}^{p} \sum_{j} \tau_{lj}^2\, f(\theta_{lj}),
        \quad K = \min(m, n)

    Gaussian probes of norm 1, Lanczos with full orthogonalisation on A'A or AA', whichever is smaller; theta are the
    eigenvalues of the tridiagonal matrix and tau the first elements of its eigenvectors. Resolution is about 1 / steps
    of the range, finer at its ends; the random error of a mean over f is about std(f) sqrt(2 / (K probes)).

    Cost: steps products with `probes` vectors at once; memory: steps x probes vectors.

    Source: Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38 (2017), algorithm 1. We deviate in Gaussian instead of
    Rademacher probes.

    Args:
        operator: What to measure.
        steps: Of Lanczos; as many nodes a probe.
        probes: Random vectors.
        generator: Of the probes; None is torch's global one.

    Returns:
        Nodes and weights, in float64 on the CPU.

    Raises:
        ValueError: If there is less than one step or probe, or products are not finite.

    Example:
        >>> from lsdr.linalg.dense import Dense
        >>> density = spectral_density(Dense(2 * torch.eye(5)))
        >>> density.cdf(torch.tensor([3.9, 4.1]))
        tensor([0., 1.], dtype=torch.float64)
    """
    if steps < 1 or probes < 1:
        raise ValueError(f"steps and probes must be 1 or more, got {steps} and {probes}")
    if operator.shape[0] < operator.shape[1]:
        operator = Adjoint(operator)
    n = operator.shape[1]
    steps = min(steps, n)
    with full_precision(operator.device):
        exponent = exponent_of(operator, generator) or 0
        # Squares of numbers far from 1 leave the range of float32.
        factor = 2.0**exponent if abs(exponent) > 20 else 1.0
        q = torch.stack([draw(n, operator, generator) for _ in range(probes)])
        q /= q.norm(dim=1, keepdim=True)
        basis = torch.zeros(probes, steps, n, dtype=operator.dtype, device=operator.device)
        diagonal, off = torch.zeros(2, probes, steps, dtype=torch.float64)
        for k in range(steps):
            basis[:, k] = q
            z = operator.gram(q) if factor == 1 else operator.adjoint(operator.matvec(q * factor) * factor)
            for repeat in range(2):  # twice is enough (Parlett, "The Symmetric Eigenvalue Problem", section 6.9)
                components = torch.einsum("pkn,pn->pk", basis[:, : k + 1], z)
                z = z - torch.einsum("pkn,pk->pn", basis[:, : k + 1], components)
                if repeat == 0:
                    diagonal[:, k] = components[:, k].double().cpu()
            norm = z.norm(dim=1)
            # A space that is exhausted stays so: zeros from here on have no weight.
            norm = torch.where(norm > 64 * torch.finfo(operator.dtype).eps * diagonal.amax(1).to(norm), norm, 0)
            off[:, k] = norm.double().cpu()
            q = torch.where(norm > 0, 1 / norm, 0)[:, None] * z
    tridiagonal = torch.diag_embed(diagonal) + torch.diag_embed(off[:, :-1], -1)
    nodes, vectors = np.linalg.eigh(tridiagonal.numpy())  # reads the lower triangle
    return SpectralDensity(
        torch.from_numpy(nodes).clamp_min(0) / factor / factor, torch.from_numpy(vectors[:, 0]).square()
    )
