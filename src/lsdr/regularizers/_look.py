"""Look at a step's images through one feature: learn its spread, compare the estimates."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers._feature_distance import feature_distance
from lsdr.regularizers._noise_aware import Noise
from lsdr.regularizers._spread import Spread
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_features import Coordinates, Feature

See = Callable[[Tensor], Coordinates]


@dataclass(frozen=True)
class Pictures:
    """A call's estimates and what they are compared with."""

    denoised: Float[Tensor, "b c *dims"]
    clean: Float[Tensor, "b c *dims"]
    target: Float[Tensor, "b c *dims"]
    """The clean images with the spectrum that noise leaves a best estimate; the clean images where not corrected."""
    gate: Float[Tensor, " b"]

    def every(self, step: int) -> "Pictures":
        """Every so-manieth example."""
        return Pictures(self.denoised[::step], self.clean[::step], self.target[::step], self.gate[::step])


@dataclass(frozen=True)
class Look:
    """What is to be done with one feature in one call."""

    feature: Feature | LayerSpectra
    mode: Noise
    tolerance: float | None
    spread: Spread | None
    learns: bool
    """Whether the clean images are taken into the spread."""
    ready: bool
    """Whether estimates are compared already."""

    def __call__(self, see: See, pictures: Pictures) -> tuple[Float[Tensor, ""], Float[Tensor, ""]] | None:
        """The gated penalty, mean over examples, and the share of coordinates that pay; None if not ready.

        Args:
            see: Gives the coordinates of images.
            pictures: The images.
        """
        filters = self.mode in ("wiener", "bracket")
        corrects = filters and any(component.power for component in self.feature.components)
        with torch.no_grad():
            plain = not corrects or self.mode == "bracket" or not all(each.power for each in self.feature.components)
            clean = see(pictures.clean) if self.learns or (self.ready and plain) else None
            if self.learns and self.spread is not None and clean is not None:
                self.spread.update(clean.values)
            if not self.ready:
                return None
            target = see(pictures.target) if corrects else clean
        assert target is not None
        band = None
        if self.spread is not None and self.tolerance is not None:
            band = self.tolerance * self.spread.variance(target.values).sqrt()
        losses, outside = feature_distance(
            see(pictures.denoised),
            target,
            target if clean is None else clean,
            self.feature.components,
            bracket=self.mode == "bracket",
            band=band,
            focal=self.feature.focal,
        )
        return (pictures.gate * losses).mean(), outside.mean()

    def apart(self, see: See, pictures: Pictures) -> tuple[Float[Tensor, ""], Float[Tensor, ""]] | None:
        """The same where seeing takes a network: its parameters get no gradient, only the estimates do.

        The gradient is taken at once, so that the network's graph is let go of here, whatever becomes of the penalty,
        and passed on to the estimates: no parameter is frozen or copied, and no wrapper of ranks notices.
        """
        if not (self.ready and torch.is_grad_enabled()):
            return self(see, pictures)
        estimate = pictures.denoised
        leaf = estimate.detach().requires_grad_()
        found = self(see, replace(pictures, denoised=leaf))
        assert found is not None
        loss, outside = found
        scale = leaf.numel()  # a pixel's part of a mean is small, for half precision too small
        (gradient,) = torch.autograd.grad(loss * scale, leaf)
        return loss.detach() + (gradient / scale * (estimate - estimate.detach())).sum(), outside
