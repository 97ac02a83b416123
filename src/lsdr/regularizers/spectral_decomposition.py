"""Spectral decomposition: control the spectrum of the step that turns one noisy image into the next."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from lsdr.layers.capture import capture
from lsdr.probes.denoising_step import Frame
from lsdr.regularizers._decomposition_term import Penalized, Settings, SpectralDecompositionTerm

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class SpectralDecomposition:
    r"""Control the spectrum of the operator that takes one noisy image to the next.

    The operator is the Jacobian of a step of Euler's method or DDIM, from noise level sigma to sigma' = rho sigma, at
    the training images; D is the denoiser, d the numbers of an image:

    .. math::
        J = \frac{a(\sigma')}{a(\sigma)}\bigl(\rho I + (1-\rho) J_D\bigr), \qquad J_D = \frac{\partial D}{\partial x}

    "Eigenvalues" are those of :math:`S = (J + J')/2`, whose largest bounds the real part of all of J's and the growth
    of small differences; at the optimum J is symmetric and they are J's. The penalties, each a mean over images:

    - ``dispersion``: :math:`(q - \bar q(\sigma))^2`, with q = tr(J)/d the mean eigenvalue, or the rms singular value
      :math:`\|J\|_F/\sqrt d`, by one random direction, and its running mean at that noise level, kept in state. Images
      are to be treated alike; the level of the spectrum is left alone. Not zero at the optimum, where images differ.
    - ``hinge``: :math:`\sum_k \mathrm{relu}(g_k - c)^2` over the k largest, c being the gain of J_D's eigenvalue
      `bound` in the frame. Zero at the optimum only if `bound` is not below what the data need: 1 is enough for
      Gaussian data, but between two clusters the optimum is above 1.
    - ``asymmetry``: :math:`\|J - J'\|_F^2/d`. Zero at the optimum, whatever the data.
    - ``negative_eigenvalues``: :math:`\sum_k \mathrm{relu}(-\mu_k)^2` over the k smallest of J_D's own, whatever
      `ratio` and `frame`. Zero at the optimum, whatever the data.
    - ``frobenius``: :math:`\|J\|_F^2/d`, or :math:`\|S\|_F^2/d`: "make the eigenvalues small". **Biased**: the product
      of the gains over the steps must be the data's spread over the noise's, so shrinking them takes variance from what
      is generated.

    Traces and norms are by one or two directions of random signs (Hutchinson), unbiased but for dispersion, to which
    the estimate's own variance adds :math:`O(\|S\|_F^2/d^2)`. The k largest and smallest are lower bounds in size: by
    `iterations` of a block Krylov space without a graph, of whose vectors u, v only u'Jv has a gradient, as if they
    were constant (for converged ones, exactly the value's own).

    Nothing is differentiated twice. By default products with J are finite differences (D(x + hv) - D(x)) / h, D(x)
    being the training pass's own estimate, so that flash attention, bfloat16, checkpointing, `torch.compile` and
    parameters sharded by FSDP2 work as in training; h is a tenth of the noise level within what the precision allows.
    In float16 and bfloat16 they go both ways, but for dispersion, and are still wrong by some 20 %. The k largest and
    smallest take backward passes to the input besides, for products with J' (checkpointing must be the non-reentrant
    kind). `chosen` of the attached term says what was done, and the logger "lsdr" once. Dropout, conditioning and sigma
    are those of one function throughout; where the network draws random numbers or normalises by its batch, D(x) is
    computed again. The extra passes are seen by no probe, and leave buffers and random state alone.

    With three iterations the Krylov space finds 94 to 99 % of the largest eigenvalue of a small trained UNet, and half
    of the most negative one. The value is good then, but its gradient's direction is only where the largest stands
    apart: its cosine with the exact one was above 0.98 where the second was 20 % lower, 0.8 at 10 %, 0.6 at 4 %, and
    0.4 at the least; with 6 iterations 0.8 at 4 %, with 12 all of it.

    Cost: on a `fraction` of the images a forward and a backward pass, for asymmetry and the Frobenius norm of S two,
    for hinge and negative eigenvalues k, and for these besides 1 + k `iterations` forward passes and k (`iterations` -
    1) backward passes to the input.

    Source: Guo et al. 2024, "Smooth Diffusion" (arXiv:2312.04410), for dispersion: there a norm of J'v by double
    backward, about one running mean for all noise levels. Hoffman, Roberts & Yaida 2019 (arXiv:1908.02729) for the norm
    by random directions; Pesquet et al. 2021 (arXiv:2012.13247) for the largest by power iteration. The other
    penalties have no published form that we follow.

    Args:
        of: "eigenvalues", or "singular_values": of J itself.
        penalty: Which one.
        weight: Finite and not negative. 0 computes everything and adds exactly nothing. At the default the gradient was
            this share of the loss's (EDM's; `unet-tiny` trained without the penalty on 16x16 patches, lr 2e-3) at steps
            20 to 90, then to 160: dispersion 0.5 %, 9 %; asymmetry 3 %, 17 %; hinge 0, single steps 20 %; negative
            eigenvalues 0, 150 %; Frobenius norm of S 75 %, 60 %, of J 13 %, 60 %. `dit-tiny` gave a third to all of
            that, for negative eigenvalues 6 %. With weight 10, dispersion and asymmetry held the network itself back
            (loss 0.18 and 0.35 for 0.10 after 160 steps); take 0.1 for the Frobenius norms.
        k: How many of the largest or smallest.
        bound: Eigenvalue (or singular value) of J_D that the hinge allows, whatever the step.
        ratio: rho = sigma'/sigma, in [0, 1), where the context has no `sigma_next`. 0 is the step to no noise, J_D.
        frame: In which differences are measured, see `frame_factor`.
        fraction: Of the images of each call: every round(1/fraction)-th, from the first.
        estimator: "auto" takes finite differences; "forward_mode" and "reverse_mode" differentiate, without flash
            attention, the latter twice. Neither runs through every network.
        iterations: Of the Krylov space.
        step: Length of the finite difference over each image's rms; None takes one by noise level and precision.

    Raises:
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> network = nn.Conv2d(1, 1, 3, padding=1)
        >>> denoiser = lambda x, sigma, conditioning=None: x - sigma * network(x)
        >>> clean, sigma = torch.zeros(8, 1, 6, 6), torch.tensor(0.5)
        >>> noisy = clean + sigma * torch.randn(clean.shape)
        >>> with attach(network, SpectralDecomposition(penalty="asymmetry", weight=0.1)) as penalty:
        ...     denoised = denoiser(noisy, sigma)
        ...     extra = penalty(denoiser=denoiser, noisy=noisy, sigma=sigma, denoised=denoised, clean=clean)
        ...     ((denoised - clean).square().mean() + extra).backward()
        >>> list(penalty.values)
        ['SpectralDecomposition/asymmetry', 'SpectralDecomposition/gain']
    """

    of: Literal["eigenvalues", "singular_values"] = "eigenvalues"
    penalty: Penalized = "dispersion"
    weight: float | int = 1.0
    k: int = 1
    bound: float | int = 1.0
    ratio: float | int = 0.7
    frame: Frame = "exploding"
    fraction: float | int = 0.125
    estimator: Literal["auto", "finite_difference", "forward_mode", "reverse_mode"] = "auto"
    iterations: int = 3
    step: float | None = None

    def __post_init__(self) -> None:
        for name in ("of", "penalty", "frame", "estimator"):
            known = get_args(type(self).__dataclass_fields__[name].type)
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.penalty in ("asymmetry", "negative_eigenvalues") and self.of != "eigenvalues":
            raise ValueError(f"penalty {self.penalty!r} is about eigenvalues; leave of='eigenvalues'")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio is sigma'/sigma of a step that denoises, in [0, 1); got {self.ratio}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is of the examples, in (0, 1]; got {self.fraction}")
        if not (math.isfinite(self.bound) and self.bound >= 0):
            raise ValueError(f"bound must be finite and not negative, got {self.bound}")
        if self.k < 1 or self.iterations < 1:
            raise ValueError(f"k and iterations must be at least 1, got k={self.k}, iterations={self.iterations}")
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"step must be positive, got {self.step}; None takes one by the precision")

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[SpectralDecompositionTerm]:
        """Watch the model until the context is left; see `lsdr.attach`."""
        term = SpectralDecompositionTerm(model, Settings(**vars(self)))
        first = next((module for module in model.modules() if isinstance(module, _LAYERS)), None)
        with ExitStack() as stack:
            stack.enter_context(capture(model, {"": model}, term.receive))
            if first is not None:
                stack.enter_context(capture(model, {"first": first}, term.see_precision))
            yield term

    def project_(self, model: nn.Module) -> None:
        """Do nothing: a penalty constrains no parameter."""
