"""Learned spectral discriminator: a critic of spectra is trained beside the denoiser, which is to satisfy it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import nn

from lsdr.layers.capture import capture
from lsdr.regularizers._critic_term import CriticTerm
from lsdr.regularizers._running_sums import ENOUGH

_NOISE = ("wiener", "snr", "none")


@dataclass(frozen=True)
class LearnedSpectralDiscriminator:
    r"""Keep the spectra of what is generated near those of the target, as judged by a network that learns to tell them.

    .. math::
        P = w\, \big\langle g(\sigma) \ln(1 + e^{-\ell(D, \sigma)}) \big\rangle, \qquad
        L_{\text{critic}} = \big\langle g(\sigma) [\ln(1 + e^{-\ell(y, \sigma)}) + \ln(1 + e^{\ell(D, \sigma)})]
        \big\rangle

    means over examples, with the logit of a `SpectralCritic`, the clean estimate D and the target y. The best clean
    estimate at noise level :math:`\sigma` is smoother than the data, so with `noise="wiener"` y is the clean image
    filtered to the power :math:`S^2 / (S + \sigma^2)` that it would then have, and :math:`g = v / (v + \sigma^2)` with
    v the variance of the data; an infinite :math:`\sigma` adds exactly 0, whatever the estimate. Where critic and
    denoiser have settled, P is w g ln 2, not 0.

    The critic learns once in each step for which gradients are enabled, with Adam, on the estimates of that step; the
    denoiser is judged by the critic as it was before. The first two steps or more measure the data, of which at least
    16 images must have been seen, and add 0. Critic and optimizer are in `penalty.state_dict()`; over ranks and
    micro-batches (under `penalty.observe()`) the critic's gradient is that of the whole batch. An example whose
    spectrum is not finite teaches the critic nothing.

    The context needs `denoised`, `clean` and `sigma`. Cost: three FFTs of the batch and six passes of a small network.

    Source: after SSD-GAN, Chen et al., arXiv 2012.05535, with the gradient through the spectrum that its published code
    cuts; the logistic losses are Goodfellow et al., arXiv 1406.2661, non-saturating. Noise levels are ours.

    Args:
        weight: w, finite and not negative. 0 computes everything, trains the critic, and adds exactly nothing. At the
            default the gradient was 0.7 % of the loss's (EDM's; `unet-tiny` trained without the penalty on 16x16
            patches, lr 2e-3) at steps 20 to 90 and 4 % to step 160, on `dit-tiny` 1 % and 13 %.
        lr: The critic's learning rate.
        hidden: Width of its two hidden layers.
        noise: "wiener" as above; "snr": y is the clean image itself, still with g; "none": that with g = 1.
        seed: Of the critic's first weights. No other randomness is used.
        learn: Clean images to measure the data's mean spectra on, 16 or more; after them these stay fixed.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.Conv2d(1, 1, 3, padding=1)
        >>> clean, sigma = torch.randn(16, 1, 8, 8), torch.full((16,), 0.5)
        >>> with attach(model, LearnedSpectralDiscriminator()) as penalty:
        ...     for step in range(4):
        ...         denoised = model(clean + sigma[0] * torch.randn_like(clean))
        ...         loss = penalty(denoised=denoised, clean=clean, sigma=sigma)
        >>> loss.requires_grad, list(penalty.values)
        (True, ['LearnedSpectralDiscriminator/estimate', 'LearnedSpectralDiscriminator/critic'])
    """

    weight: float | int = 0.01
    lr: float = 1e-3
    hidden: int = 64
    noise: Literal["wiener", "snr", "none"] = "wiener"
    seed: int = 0
    learn: int = 4096

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be finite and positive, got {self.lr}")
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")
        if self.learn < ENOUGH:
            raise ValueError(f"learn must be at least {ENOUGH} images, got {self.learn}")
        if self.noise not in _NOISE:
            raise ValueError(
                f"noise must be one of {', '.join(_NOISE)}, got {self.noise!r}; a critic compares with one set of "
                "images, so there is no 'bracket'"
            )

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[CriticTerm]:
        """Count the model's examples until the context is left; see `lsdr.attach`."""
        term = CriticTerm(float(self.weight), self.lr, self.hidden, self.noise, self.seed, self.learn)
        with capture(model, {"": model}, term.shares.receive):
            try:
                yield term
            finally:
                term.forget()

    def project_(self, model: nn.Module) -> None:
        """Do nothing: the term constrains no parameter."""
