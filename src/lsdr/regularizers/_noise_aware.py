"""What spectrum a clean estimate should have at its noise level, from the data's own."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.fourier._real_fft import full_precision_images, real_fft
from lsdr.fourier.radial_power_spectrum import ring_mean
from lsdr.fourier.wiener import filtered, wiener_gain
from lsdr.regularizers._running_sums import ENOUGH, RunningSums
from lsdr.regularizers._shares import Share

Noise = Literal["wiener", "bracket", "snr", "none"]


class NoiseAware:
    r"""The data's mean and variance at each frequency, and what follows from them for an estimate at noise level sigma.

    The minimiser of the mean squared error, :math:`E[x_0 | x]`, does not have the data's spectrum. Of Gaussian data
    with variance S at a frequency of a channel its variance there is

    .. math:: \frac{S^2}{S + \sigma^2} = W S, \qquad W = \frac{S}{S + \sigma^2}

    so the clean image is filtered by :math:`\sqrt W` about the mean, which gives it exactly this power, before the two
    are compared. Of other data the best estimate has at least that variance, since it is not worse than the best linear
    one, and at most S. S is measured on the first clean images, about their mean image, and kept.

    A step: `target` and `gate` for each chunk, from the steps before; `update` with its clean images; `merge`.

    Args:
        mode: "wiener": compare with the filtered image; "bracket": anything between it and the clean one is right;
            "snr", "none": compare with the clean image. "none" has no gate either.
        learn: Images to measure S on.
    """

    def __init__(self, mode: Noise, learn: int):
        self.mode = mode
        self._sums = RunningSums(learn)
        self._known: dict[str, Tensor] = {}

    @property
    def filters(self) -> bool:
        """Whether the clean image is filtered."""
        return self.mode in ("wiener", "bracket")

    @property
    def learning(self) -> bool:
        """Whether more images are wanted."""
        return self._sums.learning

    @property
    def ready(self) -> bool:
        """Whether enough images were seen in the steps before this one."""
        return self._sums.seen >= ENOUGH

    def update(self, clean: Float[Tensor, "b c *dims"]) -> None:
        """Take a chunk's clean images, as long as more are wanted; they count from the next step on.

        Raises:
            ValueError: If they have another shape than those before.
        """
        if not self.learning:
            return
        clean = full_precision_images(clean.detach())
        # Of each image about its own mean: 0 in all of them is data without a spectrum.
        contrast = clean.flatten(2).amax(2) > clean.flatten(2).amin(2)
        square = clean.square().flatten(1).mean(1)
        self._sums.add({"image": clean, "square": square, "contrast": contrast.sum(1), "power": _power(clean)})

    def merge(self, share: Share) -> None:
        """Count the step's images, after its last chunk.

        Raises:
            ValueError: If every one of them is constant (looked at while learning, on the CPU).
        """
        step = self._sums.settle(share)
        if not step:
            return
        self._known = {}
        contrast = step["contrast"]
        if contrast.device.type == "cpu" and not bool(contrast):
            raise ValueError(
                f"all {share.total} clean images of this step are constant, so there is no spectrum to compare with; "
                "pass clean=images of the data, scaled as the denoiser's, and look at what loads them"
            )

    def variance(self) -> Float[Tensor, ""]:
        """The data's variance about the mean image, mean over pixels and channels; float64."""
        if "variance" not in self._known:
            mean_square, image = self._sums.mean("square"), self._sums.mean("image")
            self._known["variance"] = self._sums.unbiased(mean_square, image.square().mean())
        return self._known["variance"]

    def gate(self, sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        r"""How far the data stand out of the noise, :math:`v / (v + \sigma^2)` in [0, 1]: 0 at infinite sigma.

        v is the variance over all pixels. Always 1 in mode "none".
        """
        return torch.ones_like(sigma) if self.mode == "none" else wiener_gain(self.variance().to(sigma), sigma)

    def rings(self, images: Float[Tensor, "_ c *dims"]) -> Float[Tensor, "c rings"]:
        """The data's mean radial power spectrum by channel, corners included; float64.

        Raises:
            ValueError: If these images have another shape than those that were measured.
        """
        self._check(images)
        if "rings" not in self._known:
            self._known["rings"] = ring_mean(self._sums.mean("power"), tuple(images.shape[2:]))[0]
        return self._known["rings"]

    def target(self, clean: Float[Tensor, "b c *dims"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c *dims"]:
        """The clean images with the spectrum that a best estimate of them would have at noise level sigma.

        In modes "snr" and "none" these are the clean images themselves.

        Raises:
            ValueError: If the images have another shape than those that were measured.
        """
        clean = full_precision_images(clean.detach())
        if not self.filters:
            return clean
        self._check(clean)
        if "power" not in self._known:
            image = self._sums.mean("image")
            self._known |= {
                "image": image,
                "power": self._sums.unbiased(self._sums.mean("power"), _power(image[None])[0]),
            }
        image, power = self._known["image"], self._known["power"]
        return filtered(clean, wiener_gain(power.to(clean), sigma.to(clean)).sqrt(), image.to(clean))

    def forget(self) -> None:
        """Let go of what the chunks of a step brought that did not end."""
        self._sums.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; empty before the first step."""
        return self._sums.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self._sums.load_state_dict(state)
        self._known = {}

    def _check(self, images: Tensor) -> None:
        measured = self._sums.total("image").shape
        if measured != images.shape[1:]:
            raise ValueError(
                f"the data's spectrum was measured on images of shape {tuple(measured)}, and now "
                f"{tuple(images.shape[1:])} came: all images must have one size; crop or scale them, or train without "
                "aspect-ratio buckets"
            )


def _power(images: Float[Tensor, "b c *dims"]) -> Tensor:
    """Squared coefficients of the real FFT over all dimensions but examples and channels."""
    coefficients = real_fft(images)
    power: Tensor = coefficients.real.square() + coefficients.imag.square()
    return power
