"""The spectrum of the denoiser's Jacobian and of the sampler's step, from noise level to noise level."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.measures.mmse_identity import MMSEIdentity
from lsdr.diffusion.measures.noisy_levels import noisy_levels
from lsdr.linalg.spectral_density import SpectralDensity
from lsdr.probes._operator_reading import read_operator
from lsdr.probes.conditioning import Given
from lsdr.probes.denoising_step import Frame, step_gain, time_scale
from lsdr.probes.operator_spectrum import operator_asymmetry, operator_density, operator_spectrum
from lsdr.spectrum import Spectrum

_GRID = 61


@dataclass(frozen=True)
class OperatorLevel:
    """What the operator is like at one noise level; medians are over images."""

    sigma: float
    """The noise level."""
    sigma_next: float
    """The level that the step leads to; 0 for the last step."""
    eigenvalues: dict[str, list[float]]
    """The "median", "low" (10 %) and "high" (90 %) of the largest eigenvalues of the Jacobian, descending."""
    residual: float | None
    """Largest residual of any of these eigenvalues: each has a true eigenvalue that near; None if not known."""
    gains: list[float]
    """What the step multiplies small changes along these directions by: the medians put into the step's formula."""
    singular_values: list[float]
    """Largest singular values of the Jacobian, medians; its eigenvalues again if it is symmetric and positive."""
    time_scales: list[float | None]
    """1 / (1 - mu) in units of log sigma; negative where small changes grow, None where they neither grow nor fade."""
    asymmetry: float
    """||J - J'|| / (2 ||J||) of the denoiser's Jacobian in the Frobenius norm, median: 0 at the optimum, 1 at most."""
    smallest: float
    """Smallest eigenvalue found, median: not negative at the optimum."""
    trace: float
    """tr J / d, the mean eigenvalue."""
    trace_error: float
    """Its standard error."""
    mse: float
    """Denoising error per pixel; the same as sigma^2 trace at the optimum."""
    sure: float
    """Stein's estimate of it, for any denoiser."""
    gaussian: list[float]
    """lambda / (lambda + sigma^2) for the largest eigenvalues lambda of the data's covariance: the optimum if the data
    were Gaussian."""
    density: dict[str, list[float]]
    """Its "value" and "density": how all eigenvalues are distributed; the density integrates to 1."""

    def to_dict(self) -> dict[str, Any]:
        """The level as plain numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Effort:
    """How much is spent on the operator's spectrum."""

    steps: int = 24
    """Of block Lanczos for eigenvalues and density, and for singular values, at most."""
    block: int = 2
    """Vectors in the block: few, since the values of a trained network differ; see `operator_spectrum`."""
    tolerance: float = 1e-2
    """Of the eigenvalues, relative to the largest."""
    quick: bool = False
    """Only one vector of `steps` steps, off whose quadrature eigenvalues are read, without a residual; no singular
    values."""
    batch: int = 64
    """Images in one evaluation."""


def operator_by_noise(
    denoiser: Callable[..., Tensor],
    clean: Float[Tensor, "n c *dims"],
    calibration: MMSEIdentity,
    sigmas_next: Sequence[float],
    *,
    covariance: Float[Tensor, "modes"] | None = None,
    k: int = 8,
    frame: Frame = "exploding",
    conditioning: Given = None,
    effort: Effort | None = None,
    generator: torch.Generator | None = None,
) -> list[OperatorLevel]:
    r"""Eigenvalues, gains, singular values, time scales, density and asymmetry of the operator, level by level.

    .. math:: J_D = \frac{\partial D(x, \sigma)}{\partial x}, \qquad g = \frac{a(\sigma')}{a(\sigma)}
        \bigl(\rho + (1-\rho)\mu\bigr), \qquad \tau = \frac{1}{1-\mu}

    at noisy versions of the images, each with noise of its own at each level. Eigenvalues mu are those of the symmetric
    part of J_D, singular values those of J_D itself: for the best denoiser the same. They are Ritz values, estimates
    from inside: but for rounding (and what finite differences are off) the true ones of the same rank are larger or
    equal, and `residual` says how near each is to some true one. The smallest eigenvalue is the smallest node of the
    density's quadrature, an estimate from above. Levels and estimator are those of `calibration`. Cost: for each image
    and level up to `steps` x `block` products with J_D and its transpose for the eigenvalues, density and asymmetry,
    and as many for the singular values. Invisible to the model.

    Source: see `operator_spectrum`; that mu = lambda / (lambda + sigma^2) for Gaussian data is Wiener's filter.

    Args:
        denoiser: D(x, sigma, conditioning), any callable.
        clean: Clean images, shape (n, c, \*dims).
        calibration: What `mmse_identity` found, of these or of more images.
        sigmas_next: The level that the sampler's step from each level leads to.
        covariance: Eigenvalues of the data's covariance, descending (see `covariance_eigenvalues`).
        k: How many eigenvalues and singular values; fewer if an image has fewer values.
        frame: In which frame gains are told: "exploding", "preserving" or "flow".
        conditioning: What each image is conditioned on, one entry per image.
        effort: How much to spend.
        generator: Source of noise and random starts.

    Returns:
        A level each, in the order of `calibration`.

    Raises:
        TypeError: If the images are not floating-point numbers.
        ValueError: If there is not one next level for each level, there are no images, or as `operator_spectrum`.

    Example:
        >>> from lsdr.diffusion.edm import EDMDenoiser
        >>> from lsdr.diffusion.measures.mmse_identity import mmse_identity
        >>> optimum, images = EDMDenoiser(lambda x, t: torch.zeros_like(x)), torch.randn(2, 1, 4, 4)
        >>> calibration = mmse_identity(optimum, images, torch.tensor([0.5]))
        >>> level = operator_by_noise(optimum, images, calibration, [0.25], k=1)[0]
        >>> level.eigenvalues["median"], level.gains, level.time_scales
        ([0.5], [0.75], [2.0])
    """
    levels, count, effort = len(calibration.sigma), len(clean), effort or Effort()
    if len(sigmas_next) != levels:
        raise ValueError(f"expected a next level for each of the {levels} noise levels, got {len(sigmas_next)}")
    if not count:
        raise ValueError("need at least one image")
    noisy, sigma, given = noisy_levels(clean, calibration.sigma, conditioning, generator)[:3]
    k = min(k, clean[0].numel())
    common: dict[str, Any] = {
        "conditioning": given,
        "estimator": calibration.estimator,
        "batch": effort.batch,
        "generator": generator,
    }
    singular: list[Spectrum] = []
    if effort.quick:
        densities = operator_density(denoiser, noisy, sigma, steps=effort.steps, probes=1, **common)
        nodes = [_nodes(each) for each in densities]
        k = min(k, *map(len, nodes))
        eigen = [Spectrum.of(each.topk(k).values, "eigenvalues") for each in nodes]
        asymmetry = operator_asymmetry(denoiser, noisy, sigma, probes=1, **common)
    else:
        iterated: dict[str, Any] = {
            "steps": effort.steps,
            "block": min(effort.block, clean[0].numel()),
            "tolerance": effort.tolerance,
        }
        found = read_operator(denoiser, noisy, sigma, None, k, "eigenvalues", **iterated, **common)
        eigen, densities, asymmetry = found.spectra, found.densities, found.asymmetry
        singular = operator_spectrum(denoiser, noisy, sigma, k=k, of="singular_values", **iterated, **common)
    return [
        _level(
            place,
            calibration,
            float(sigmas_next[place]),
            eigen[rows],
            singular[rows],
            densities[rows],
            asymmetry[rows],
            covariance,
            frame,
            1 if effort.quick else min(effort.block, clean[0].numel()),
        )
        for place in range(levels)
        for rows in [slice(place * count, (place + 1) * count)]
    ]


def covariance_eigenvalues(images: Float[Tensor, "n c *dims"], most: int = 512) -> Float[Tensor, "modes"]:
    r"""Eigenvalues of the pixels' covariance, descending: at most n - 1, the rest cannot be known from n images.

    .. math:: \lambda_k = \frac{s_k^2}{n - 1}

    with s the singular values of the centred images as rows. Cost: a singular value decomposition of n x d, or of as
    many images as `most` and as many values as they have.

    Example:
        >>> covariance_eigenvalues(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]]))
        tensor([2.], dtype=torch.float64)
    """
    rows = images[:most].flatten(1).double().cpu()
    if len(rows) < 2:
        return rows.new_zeros(0)
    centred = rows - rows.mean(0)
    values: Tensor = torch.linalg.svdvals(centred)[: len(rows) - 1].square() / (len(rows) - 1)
    return values


def _level(
    place: int,
    calibration: MMSEIdentity,
    sigma_next: float,
    eigen: Sequence[Spectrum],
    singular: Sequence[Spectrum],
    densities: Sequence[SpectralDensity],
    asymmetry: Tensor,
    covariance: Tensor | None,
    frame: Frame,
    block: int,
) -> OperatorLevel:
    """What was found at one level, over its images."""
    sigma = float(calibration.sigma[place])
    values = torch.stack([each.values for each in eigen])
    low, median, high = (values.quantile(share, dim=0) for share in (0.1, 0.5, 0.9))
    residuals = [each.residual.max() for each in eigen if each.residual is not None]
    known = covariance if covariance is not None else values.new_zeros(0)
    return OperatorLevel(
        sigma=sigma,
        sigma_next=sigma_next,
        eigenvalues={"median": median.tolist(), "low": low.tolist(), "high": high.tolist()},
        residual=float(torch.stack(residuals).max()) if residuals else None,
        gains=step_gain(median, sigma, sigma_next, frame).tolist(),
        singular_values=torch.stack([each.values for each in singular]).quantile(0.5, dim=0).tolist()
        if singular
        else [],
        time_scales=_finite(time_scale(median).tolist()),
        asymmetry=float(asymmetry.quantile(0.5)),
        smallest=float(torch.stack([_nodes(each).min() for each in densities]).quantile(0.5)),
        trace=float(calibration.trace[place]),
        trace_error=float(calibration.trace_error[place]),
        mse=float(calibration.mse[place]),
        sure=float(calibration.sure[place]),
        gaussian=(known / (known + sigma**2))[: len(median)].tolist(),
        density=_density(densities, block),
    )


def _nodes(density: SpectralDensity) -> Float[Tensor, "nodes"]:
    """The nodes that stand for something: where Lanczos has exhausted the space, the rest are zeros of no weight."""
    return density.nodes[density.weights > 1e-12]


def _finite(values: list[float]) -> list[float | None]:
    """JSON has no infinity."""
    return [value if math.isfinite(value) else None for value in values]


def _density(densities: Sequence[SpectralDensity], block: int) -> dict[str, list[float]]:
    """The mean over images, on a grid that holds all of it, as smooth as the steps of the quadrature resolve."""
    nodes = torch.cat([each.nodes for each in densities])
    joint = SpectralDensity(nodes, torch.cat([each.weights for each in densities]))
    bottom, top = float(_nodes(joint).min()), float(_nodes(joint).max())
    # A spectrum of one value (white noise, the untrained) still gets a width that can be drawn.
    width = max((top - bottom) * block / nodes.shape[1], 0.01 * max(abs(bottom), abs(top)), 1e-12)
    grid = torch.linspace(bottom - 3 * width, top + 3 * width, _GRID, dtype=torch.float64)
    return {"value": grid.tolist(), "density": joint.density(grid, width).tolist()}
