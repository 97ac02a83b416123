"""One end of the operator's spectrum at each noisy image, with what the same products tell besides."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.batched_lanczos import RitzPairs, batched_ritz
from lsdr.linalg.jacobian import WORDS, Estimator
from lsdr.linalg.spectral_density import SpectralDensity
from lsdr.probes._denoiser_jacobian import (
    Denoise,
    Levels,
    Of,
    SymmetricOperator,
    check_of,
    denoiser_jacobian,
    gaussian,
    measuring,
    step_of,
)
from lsdr.probes.conditioning import Given
from lsdr.probes.denoising_step import Frame
from lsdr.spectrum import Spectrum

End = Literal["largest", "smallest"]


@dataclass(frozen=True, eq=False)
class OperatorReading:
    """What one run of block Lanczos tells, per image."""

    spectra: list[Spectrum]
    """The values asked for."""
    densities: list[SpectralDensity]
    """All of them, as `block` random vectors see them; as fine as the run was long."""
    asymmetry: Float[Tensor, " b"]
    """As of `operator_asymmetry`, from `block` random vectors."""


def read_operator(
    denoiser: Denoise,
    noisy: Float[Tensor, "b *dims"],
    sigma: Levels,
    sigma_next: Levels | None,
    k: int,
    of: Of,
    *,
    conditioning: Given,
    frame: Frame = "exploding",
    end: End = "largest",
    estimator: Estimator = "auto",
    steps: int,
    block: int | None,
    tolerance: float,
    batch: int,
    generator: torch.Generator | None,
) -> OperatorReading:
    """Measure as `operator_spectrum` does; its arguments and its errors."""
    check_of(of)
    if end not in ("largest", "smallest"):
        raise ValueError(f"end is {end!r}; expected 'largest' or 'smallest'")
    if steps < 1 or not tolerance > 0:
        raise ValueError(f"steps must be 1 or more and tolerance positive, got {steps} and {tolerance}")
    with measuring(denoiser, noisy.device):
        jacobian = denoiser_jacobian(denoiser, noisy, sigma, conditioning, estimator=estimator, batch=batch)
        count, d = jacobian.shape
        width = k if block is None else block
        if not (1 <= k <= d and 1 <= width <= d):
            raise ValueError(f"k and block must be between 1 and the {d} values of an image, got {k} and {width}")
        rho, factor = step_of(noisy, sigma, sigma_next, frame)
        operator = SymmetricOperator(jacobian, rho if of == "singular_values" else None)
        found = batched_ritz(
            operator.symmetric if of == "eigenvalues" else operator.gram,
            gaussian(count, width, noisy, generator),
            largest=k if end == "largest" else 0,
            smallest=k if end == "smallest" else 0,
            tolerance=tolerance if of == "eigenvalues" else tolerance * (1 - rho),
            steps=steps,
        )
    part = "(J + J')/2" if of == "eigenvalues" else "J'J"
    method = f"block Lanczos on {part}, {WORDS[jacobian.estimator]}, {found.steps} steps of {width}"
    short = f", tolerance {tolerance:g} not reached"
    said = [
        f"{method}, asymmetry {apart:.2g}{'' if reached else short}"
        for apart, reached in zip(operator.asymmetry.tolist(), found.converged.tolist(), strict=True)
    ]
    nodes = of_step(found.nodes, rho, factor, of)[:, None]
    return OperatorReading(
        _spectra(found, rho, factor, of, end, said),
        [SpectralDensity(*each) for each in zip(nodes, found.weights[:, None], strict=True)],
        operator.asymmetry,
    )


def of_step(values: Tensor, rho: Tensor, factor: Tensor, of: Of) -> Tensor:
    """Values of the step in its frame from eigenvalues of (J_D + J_D')/2 or of the step's J'J; (b, ...)."""
    rho, factor = (each.view(-1, *[1] * (values.ndim - 1)) for each in (rho, factor))
    return factor * (rho + (1 - rho) * values if of == "eigenvalues" else values.clamp(min=0).sqrt())


def _spectra(found: RitzPairs, rho: Tensor, factor: Tensor, of: Of, end: End, methods: list[str]) -> list[Spectrum]:
    noise = found.noise[:, None]
    inner, outer = noise, found.residuals + noise
    below, above = (inner, outer) if end == "largest" else (outer, inner)
    values, residual = found.values, found.residuals
    if of == "singular_values":
        positive = values > values[:, :1].clamp(min=0) * 1e-12
        residual = torch.where(positive, residual / torch.where(positive, values, 1), 0)
    else:
        residual = residual * (factor * (1 - rho))[:, None]
    values, low, high = (of_step(each, rho, factor, of) for each in (values, values - below, values + above))
    return [
        Spectrum.of(values[i], of, method=method, lower=low[i], upper=high[i], residual=residual[i])
        for i, method in enumerate(methods)
    ]
