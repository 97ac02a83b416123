"""Spectral discriminator: keep the spectra of what a denoiser estimates near those of real images."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from lsdr.layers.capture import capture
from lsdr.regularizers._discriminator_term import DiscriminatorTerm
from lsdr.regularizers._noise_aware import Noise
from lsdr.regularizers._running_sums import ENOUGH
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_features import AmplitudePhase, BlockDCT, Feature, RadialSpectrum, Wavelet

_NAMED: dict[str, Feature | LayerSpectra] = {
    "amplitude_phase": AmplitudePhase(),
    "focal": AmplitudePhase(focal=1),
    "radial": RadialSpectrum(),
    "dct": BlockDCT(),
    "wavelet": Wavelet(),
    "layers": LayerSpectra(),
}


@dataclass(frozen=True)
class SpectralDiscriminator:
    r"""Compare spectral features of the clean estimate with those of the real image, where they differ too much.

    .. math:: P = \frac{w}{B |F|} \sum_i \frac{v}{v + \sigma_i^2} \sum_{f \in F}
        \frac{\sum_k w_k \max(d_{ik} - t s_k, 0)^2}{\sum_k w_k}

    with the distance d of the coordinates k of a feature f in the estimate D(x, sigma) from where they should be, a
    tolerance t in units of s_k, the spread of that coordinate between real images, and the data's variance v.
    Non-negative; dimensionless for log spectra, squared units of the images for others.

    **features**, by name or as an instance with settings; their penalties are averaged:

    - `"radial"` (default), `RadialSpectrum`: log radial power spectrum of each channel. Blind to phase.
    - `"amplitude_phase"`, `AmplitudePhase`: all Fourier coefficients. With `noise="none"` and `tolerance=None` this is
      the mean squared error.
    - `"focal"`, `AmplitudePhase(focal=1)`: the same with the largest errors weighing most.
    - `"dct"`, `BlockDCT`: cosine transforms of blocks. `"wavelet"`, `Wavelet`: wavelet coefficients.
    - `"layers"`, `LayerSpectra`: spectra of the features of chosen layers.

    **noise**: the best estimate of an image under noise is smoother than the image, so at high sigma pressing its
    spectrum towards the data's is wrong (see `NoiseAware`).

    - `"wiener"` (default): magnitudes (`radial`, `layers`, amplitudes) are compared with those of the clean image
      filtered to the power that the best linear estimate has. Exact for Gaussian data: there the best denoiser's powers
      are distributed as the target's at every sigma. What is linear in the image (`dct`, `wavelet`, the phase part) is
      compared with the clean image itself, whose mean given x is the best estimate.
    - `"bracket"`: magnitudes may be anywhere between that and the clean image's: right for any data, since the best
      estimate is not worse than the best linear one, and weaker.
    - `"snr"`: no correction. `"none"`: no correction, and no gate v / (v + sigma^2) either.

    The gate lets an infinite sigma (zero terminal signal-to-noise ratio) contribute exactly nothing, even if the
    estimate there is not finite.

    What is known of the data (spectrum, variance, spread) is learnt from the first clean images: float64 sums over all
    ranks, in the checkpoint, used from the next step on and never changed after `learn` images. Until 16 images are in
    each sum the penalty is 0: the first two steps at least, as spreads begin once the variance is known. Features
    without a tolerance, correction or floor need none of this and start at once. Images of several sizes (aspect-ratio
    buckets, one size in a step) have statistics of their own for each size, of `learn` images each.

    The penalty is a mean over the step's examples: over ranks, chunks under `penalty.observe()` and one batch it is the
    same. Call it with `denoised`, `clean` and `sigma`; `layers` of the network itself also take `denoiser` and
    `conditioning`. An estimate that is not finite gives NaN.

    Cost: a few FFTs of the batch, which is below 3 % of a U-Net's training step; `layers` run a network.

    Source: spectral regularisation of diffusion models (arXiv 2603.02447), with L1 norms and without noise correction;
    Focal Frequency Loss (arXiv 2012.12821); DeCo (arXiv 2511.19365) for the weights of `BlockDCT`. Tolerance and noise
    correction are new here.

    Args:
        features: One or more features.
        weight: w, finite and not negative. 0 computes everything and adds exactly nothing. At weight 1 the gradient
            of `radial` was 115 % of the loss's (EDM's; `unet-tiny` trained without the penalty on 16x16 patches, lr
            2e-3) at steps 20 to 90 and 53 % at steps 170 to 300, on `dit-tiny` 185 % and 147 %: it helped on small
            pictures and cost 13 % of the held-out loss on CIFAR-10. That of `layers` was 8 % and 0.2 %, that of
            `amplitude_phase`, `focal` and `dct` below 0.7 % (in the images' squared units, and within the tolerance
            mostly 0): for these take weights of 10 to 1000.
        noise: See above.
        tolerance: t, or None for plain squared distances.
        domain: "latents" refuses what is for pixels alone (`BlockDCT(weights="jpeg")`).
        learn: Real images to learn from, of each size, 16 at least.

    Raises:
        TypeError: If `features` is a string or holds something else.
        ValueError: If an argument is out of range or a feature is for pixels and the domain is latents.

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> model, images = nn.Conv2d(1, 1, 3, padding=1), torch.randn(32, 1, 8, 8)
        >>> with attach(model, SpectralDiscriminator()) as penalty:
        ...     for _ in range(3):
        ...         denoised = model(images + 0.5 * torch.randn_like(images))
        ...         found = penalty(denoised=denoised, clean=images, sigma=torch.tensor(0.5))
        ...     found.backward()
        >>> list(penalty.values), bool(model.weight.grad.norm() > 0)
        (['SpectralDiscriminator/radial', 'SpectralDiscriminator/outside'], True)
    """

    features: Sequence[str | Feature | LayerSpectra] = ("radial",)
    weight: float | int = 0.1
    noise: Noise = "wiener"
    tolerance: float | int | None = 1.0
    domain: Literal["pixels", "latents"] = "pixels"
    learn: int = 4096

    def __post_init__(self) -> None:
        if isinstance(self.features, str) or not self.features:
            raise TypeError(f"features must be a sequence of one or more, as ('radial',), got {self.features!r}")
        for feature in self.features:
            if isinstance(feature, str) and feature not in _NAMED:
                raise ValueError(f"feature {feature!r} is unknown; there are {', '.join(map(repr, _NAMED))}")
            if not isinstance(feature, str | Feature | LayerSpectra):
                raise TypeError(f"features must be names or instances such as RadialSpectrum(), got {feature!r}")
            if self.domain == "latents" and isinstance(feature, BlockDCT) and feature.weights == "jpeg":
                raise ValueError(
                    "BlockDCT(weights='jpeg') is for pixels: latent channels are no colours, and JPEG's table is about "
                    "eyes; use weights='flat' with domain='latents'"
                )
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if self.noise not in get_args(Noise):
            raise ValueError(f"noise must be one of {', '.join(map(repr, get_args(Noise)))}, got {self.noise!r}")
        if self.tolerance is not None and not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance must be None, or finite and not negative, got {self.tolerance}")
        if self.domain not in ("pixels", "latents"):
            raise ValueError(f"domain must be 'pixels' or 'latents', got {self.domain!r}")
        if self.learn < ENOUGH:
            raise ValueError(f"learn must be {ENOUGH} images at least, got {self.learn}")

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[DiscriminatorTerm]:
        """Watch the model until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If the layers of a `LayerSpectra` match none.
        """
        features: dict[str, Feature | LayerSpectra] = {}
        seen: Counter[str] = Counter()
        for each in self.features:
            feature = _NAMED[each] if isinstance(each, str) else each
            seen[feature.name] += 1
            count = seen[feature.name]
            features[feature.name if count == 1 else f"{feature.name}-{count}"] = feature
        tolerance = None if self.tolerance is None else float(self.tolerance)
        term = DiscriminatorTerm(model, features, self.noise, tolerance, float(self.weight), self.learn)
        with capture(model, {"": model}, term.shares.receive):
            try:
                yield term
            finally:
                term.forget()

    def project_(self, model: nn.Module) -> None:
        """Do nothing: a penalty constrains no parameter."""
