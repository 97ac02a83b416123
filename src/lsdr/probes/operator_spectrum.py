"""The spectrum of the operator that takes one noisy image to the next: its ends, density, trace and asymmetry."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.batched_lanczos import batched_quadrature
from lsdr.linalg.jacobian import Estimator
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
from lsdr.probes._operator_reading import End, of_step, read_operator
from lsdr.probes.conditioning import Given
from lsdr.probes.denoising_step import Frame
from lsdr.spectrum import Spectrum


def operator_spectrum(
    denoiser: Denoise,
    noisy: Float[Tensor, "b *dims"],
    sigma: Levels,
    sigma_next: Levels | None = None,
    k: int = 8,
    of: Of = "eigenvalues",
    *,
    conditioning: Given = None,
    frame: Frame = "exploding",
    end: End = "largest",
    estimator: Estimator = "auto",
    steps: int = 30,
    block: int | None = None,
    tolerance: float = 1e-3,
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> list[Spectrum]:
    r"""The k largest eigenvalues or singular values of the operator at each noisy image.

    The operator is the Jacobian of the denoiser, or that of the sampler's Euler (DDIM) step from sigma to sigma':

    .. math:: J_D = \frac{\partial D(x, \sigma)}{\partial x}, \qquad
        J = \frac{a(\sigma')}{a(\sigma)}\bigl(\rho I + (1 - \rho) J_D\bigr), \quad \rho = \sigma'/\sigma

    Of the best possible denoiser :math:`J_D = \operatorname{Cov}[x_0 | x] / \sigma^2`, symmetric and without negative
    eigenvalues. A network's is not quite symmetric; "eigenvalues" are those of :math:`(J + J')/2`, whose largest bounds
    the real part of every eigenvalue of J (Bendixson) and is the growth rate of differences. "singular_values" are the
    roots of the eigenvalues of J'J, the Gauss-Newton Hessian of half the squared step.

    Values are without a unit: differences out over differences in. Each is an estimate from inside (a Ritz value); for
    eigenvalues from the top, `lower` holds for the eigenvalue of the same rank, but for the noise of the products,
    which is taken off; `upper` adds the residual: an eigenvalue is below it that near, but that no larger one was
    missed is as sure as a random start makes it, not proved. From the smallest end the two change places.
    `residual` is |S v - theta v| in the values' unit for eigenvalues, |J'J v - theta v| / theta for singular values.
    `method` tells how J v was had, how many steps, whether the tolerance was reached, and the asymmetry of J_D.

    Cost: some 8 to 20 steps for k = 8, most at low noise where values lie close; each step is `block` products with
    J_D and as many with J_D' for each image, 4 to 6 evaluations for a pair. Memory: two vectors of an image's size for
    every product kept.

    Source: block Lanczos as in Saad 2011 (see `batched_ritz`); the operator is that of Kadkhodaie et al. 2024, whose
    eigenvectors are an adapted basis, with the symmetric part in place of the assumption that J_D is symmetric.

    Args:
        denoiser: Any D(x, sigma, conditioning), a clean estimate for images clean + sigma * noise; its `model` (if it
            has one) is put into evaluation mode and back.
        noisy: Noisy images in that frame, shape (b, c, \*dims).
        sigma: Their noise level, a number or one per image, positive.
        sigma_next: The noise level after the step, in [0, sigma); None for the denoiser's own Jacobian, which is also
            the step to 0 in the exploding frame.
        k: How many values, at most the number of values in an image.
        of: "eigenvalues" or "singular_values".
        conditioning: What each image is conditioned on: a tensor with one entry per image, or a mapping of such.
        frame: In which frame the step is taken; see `frame_factor`. It does not matter without sigma_next.
        end: "largest" or "smallest".
        estimator: How products J v are had: "forward_mode", "finite_difference", or "auto" for the first if it works.
        steps: Of block Lanczos, at most.
        block: Vectors in the block; None for k. A quarter of k with four times the steps costs half as much, but finds
            a multiple eigenvalue (symmetric data) for sure only that many times; see `batched_ritz`.
        tolerance: Of the residual, relative to the largest eigenvalue of J_D in size (or of J'J; for a step this is
            times 1 - rho, since the identity in it is known).
        batch: Images in one evaluation, at most.
        generator: Of the random start; None is torch's global one. Nothing else is drawn.

    Returns:
        A spectrum for each image, in float64 on the CPU.

    Raises:
        ValueError: If an argument is out of range or of another shape, images are not finite, or the denoiser returns
            another shape, values that are not finite, or two answers for one input.
        RuntimeError: If forward mode is asked for and does not run.

    Example:
        >>> wiener = lambda x, sigma, conditioning: x * torch.tensor([0.9, 0.5, 0.1])
        >>> found = operator_spectrum(wiener, torch.randn(1, 3), sigma=1.0, sigma_next=0.5, k=2)
        >>> found[0].values
        tensor([0.9500, 0.7500], dtype=torch.float64)
    """
    return read_operator(
        denoiser,
        noisy,
        sigma,
        sigma_next,
        k,
        of,
        conditioning=conditioning,
        frame=frame,
        end=end,
        estimator=estimator,
        steps=steps,
        block=block,
        tolerance=tolerance,
        batch=batch,
        generator=generator,
    ).spectra


def operator_density(
    denoiser: Denoise,
    noisy: Float[Tensor, "b *dims"],
    sigma: Levels,
    sigma_next: Levels | None = None,
    of: Of = "eigenvalues",
    *,
    conditioning: Given = None,
    frame: Frame = "exploding",
    estimator: Estimator = "auto",
    steps: int = 20,
    probes: int = 4,
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> list[SpectralDensity]:
    r"""How all eigenvalues or singular values of the operator at each image are distributed.

    .. math:: \frac1d \operatorname{tr} f(S) \approx \frac1p \sum_{l=1}^p \sum_j \tau_{lj}^2\, f(\theta_{lj}),
        \qquad S = (J + J')/2

    by stochastic Lanczos quadrature from Gaussian starts; the operators are those of `operator_spectrum`. Nodes are
    eigenvalues, or for "singular_values" the singular values themselves (the roots of those of J'J). An estimate:
    resolution is about 1 / steps of the range, finer at its ends; the smallest node is above the smallest eigenvalue,
    the largest below the largest.

    Cost: steps x probes products with J and as many with J' for each image.

    Source: Ubaru, Chen & Saad 2017 (see `batched_quadrature`).

    Args:
        denoiser: As for `operator_spectrum`, like the arguments that are not here.
        noisy: Noisy images.
        sigma: Their noise level.
        sigma_next: The noise level after the step; None for the denoiser's own Jacobian.
        of: "eigenvalues" or "singular_values".
        conditioning: What each image is conditioned on.
        frame: In which frame the step is taken.
        estimator: How products J v are had.
        steps: Of Lanczos; as many nodes a probe.
        probes: Random starts for each image.
        batch: Images in one evaluation, at most.
        generator: Of the starts; None is torch's global one.

    Returns:
        Nodes and weights for each image; `density`, `cdf` and `mean` are functions of them.

    Raises:
        ValueError: As `operator_spectrum`, or if there is less than one step or probe.
        RuntimeError: If forward mode is asked for and does not run.

    Example:
        >>> half = lambda x, sigma, conditioning: 0.5 * x
        >>> operator_density(half, torch.randn(1, 1, 4, 4), sigma=1.0)[0].mean()[0]
        0.5
    """
    check_of(of)
    if steps < 1 or probes < 1:
        raise ValueError(f"steps and probes must be 1 or more, got {steps} and {probes}")
    with measuring(denoiser, noisy.device):
        jacobian = denoiser_jacobian(denoiser, noisy, sigma, conditioning, estimator=estimator, batch=batch)
        rho, factor = step_of(noisy, sigma, sigma_next, frame)
        operator = SymmetricOperator(jacobian, rho if of == "singular_values" else None)
        nodes, weights = batched_quadrature(
            operator.symmetric if of == "eigenvalues" else operator.gram,
            gaussian(jacobian.shape[0], probes, noisy, generator),
            steps=steps,
        )
    return [SpectralDensity(*each) for each in zip(of_step(nodes, rho, factor, of), weights, strict=True)]


@dataclass(frozen=True, eq=False)
class Trace:
    """The mean eigenvalue of the denoiser's Jacobian at each image, from random probes."""

    trace: Float[Tensor, " b"]
    """tr J_D / d."""
    error: Float[Tensor, " b"]
    """Its standard error over the probes; nan for one probe."""
    estimator: Literal["forward_mode", "finite_difference"]
    """How products J v were had."""
    why: str
    """Why so, in words."""


def operator_trace(
    denoiser: Denoise,
    noisy: Float[Tensor, "b *dims"],
    sigma: Levels,
    *,
    probes: int = 8,
    conditioning: Given = None,
    estimator: Estimator = "auto",
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> Trace:
    r"""The mean eigenvalue of the denoiser's Jacobian at each image, by Hutchinson's estimator.

    .. math:: \frac{\operatorname{tr} J_D}{d} = \mathbb{E}_v\,\frac{v' J_D v}{d}, \qquad v_i = \pm 1

    Unbiased (but for what finite differences are off). Of the best possible denoiser, sigma^2 tr J_D / d averaged over
    noisy images is its mean squared error per value; of any, it gives Stein's unbiased estimate of that error.

    Cost: `probes` products J v for each image, forward only: no backward pass.

    Source: Hutchinson, Commun. Stat. Simul. Comput. 19 (1990); the identity is Stein, Ann. Stat. 9 (1981).

    Args:
        denoiser: As for `operator_spectrum`, like the arguments that are not here.
        noisy: Noisy images.
        sigma: Their noise level.
        probes: Random vectors for each image.
        conditioning: What each image is conditioned on.
        estimator: How products J v are had.
        batch: Images in one evaluation, at most.
        generator: Of the probes; None is torch's global one.

    Returns:
        The mean eigenvalue of each image with its standard error, in float64 on the CPU.

    Raises:
        ValueError: As `operator_spectrum`, or if there is no probe.
        RuntimeError: If forward mode is asked for and does not run.

    Example:
        >>> operator_trace(lambda x, sigma, conditioning: 0.5 * x, torch.randn(1, 1, 4, 4), sigma=1.0).trace
        tensor([0.5000], dtype=torch.float64)
    """
    if probes < 1:
        raise ValueError(f"probes must be 1 or more, got {probes}")
    with measuring(denoiser, noisy.device):
        jacobian = denoiser_jacobian(denoiser, noisy, sigma, conditioning, estimator=estimator, batch=batch)
        signs = torch.where(gaussian(jacobian.shape[0], probes, noisy, generator) < 0, -1.0, 1.0).to(noisy.device)
        forms = (signs.double() * jacobian.matvec(signs)).mean(2).cpu()
    error = forms.std(1) / probes**0.5 if probes > 1 else torch.full((len(forms),), math.nan, dtype=torch.float64)
    return Trace(forms.mean(1), error, jacobian.estimator, jacobian.why)


def operator_asymmetry(
    denoiser: Denoise,
    noisy: Float[Tensor, "b *dims"],
    sigma: Levels,
    *,
    probes: int = 4,
    conditioning: Given = None,
    estimator: Estimator = "auto",
    batch: int = 64,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    r"""How far the denoiser's Jacobian at each image is from symmetric, from 0 (it is) to 1 (antisymmetric).

    .. math:: \frac{\|J - J'\|_F}{2\,\|J\|_F} \approx
        \sqrt{\frac{\sum_v |Jv - J'v|^2}{2 \sum_v \bigl(|Jv|^2 + |J'v|^2\bigr)}}

    The same for any multiple of J. 0 for the best possible denoiser, whose Jacobian is a covariance; a denoiser that is
    a gradient has 0 as well. 0 where J = 0. A ratio of unbiased estimates, always within [0, 1]. By finite differences
    the smallest value that can be told from 0 is about what these are off.

    Cost: `probes` products with J and as many with J' for each image.

    Source: the numerator is the penalty of Chao et al. 2022 (arXiv 2209.12753); the normalisation is ours.

    Args:
        denoiser: As for `operator_spectrum`, like the arguments that are not here.
        noisy: Noisy images.
        sigma: Their noise level.
        probes: Random vectors for each image.
        conditioning: What each image is conditioned on.
        estimator: How products J v are had.
        batch: Images in one evaluation, at most.
        generator: Of the probes; None is torch's global one.

    Returns:
        The asymmetry of each image, in float64 on the CPU.

    Raises:
        ValueError: As `operator_spectrum`, or if there is no probe.
        RuntimeError: If forward mode is asked for and does not run.

    Example:
        >>> turn = lambda x, sigma, conditioning: torch.stack([-x[:, 1], x[:, 0]], 1)
        >>> operator_asymmetry(turn, torch.randn(1, 2), sigma=1.0)
        tensor([1.], dtype=torch.float64)
    """
    if probes < 1:
        raise ValueError(f"probes must be 1 or more, got {probes}")
    with measuring(denoiser, noisy.device):
        jacobian = denoiser_jacobian(denoiser, noisy, sigma, conditioning, estimator=estimator, batch=batch)
        operator = SymmetricOperator(jacobian, None)
        operator.symmetric(gaussian(jacobian.shape[0], probes, noisy, generator))
    return operator.asymmetry
