"""EDM preconditioning (Karras et al. 2022)."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.call_model import call_model
from lsdr.diffusion.denoiser import Conditioning, open_interval, per_example, prepare

_P_MEAN, _P_STD = -1.2, 1.2  # Table 1, "Noise distribution"


@dataclass(frozen=True, eq=False)
class EDMDenoiser:
    r"""A network F under the preconditioning of EDM, which keeps its input and its target at unit variance.

    .. math::
        D(x,\sigma) = \frac{x}{1+r^2} + \frac{\sigma}{\sqrt{1+r^2}}\,
        F\!\Bigl(\frac{x}{\sigma_d\sqrt{1+r^2}},\ \tfrac14\ln\sigma\Bigr),\qquad r = \sigma/\sigma_d

    Exact at the ends: at sigma = 0 it returns x to the last bit (the network is still called).

    Source: Karras, Aittala, Aila & Laine, "Elucidating the design space of diffusion-based generative models", 2022,
    eq. 7 and Table 1, written in r = sigma / sigma_data so that c_skip is exactly 1 at sigma = 0.

    Args:
        model: The network F, called as described in `call_model`; its time is ln(sigma) / 4.
        sigma_data: The standard deviation of the data; 0.5 is customary for images in [-1, 1].
        sigma_min: The smallest noise level a sampler should use.
        sigma_max: The largest noise level a sampler should use.

    Raises:
        ValueError: If sigma_data or the range of sigma is not positive.

    Example:
        >>> denoise = EDMDenoiser(lambda x, t: torch.zeros_like(x))
        >>> denoise(torch.ones(1, 1, 1, 1), torch.tensor(0.5))
        tensor([[[[0.5000]]]])
    """

    model: Any
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data is {self.sigma_data}; it is a standard deviation and must be positive")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def __call__(
        self, x: Float[Tensor, "b *dims"], sigma: Float[Tensor, "..."], conditioning: Conditioning = None
    ) -> Float[Tensor, "b *dims"]:
        """Estimate the clean images in x = clean + sigma * noise.

        Args:
            x: Noisy images.
            sigma: Noise level, 0-d or one per example.
            conditioning: Class labels, one per example; what the network takes by keyword (see `call_model`); or None.

        Returns:
            The estimate, shaped like x, float32 or better.

        Raises:
            ValueError: If the shapes do not fit, or sigma on the CPU is negative, infinite or NaN.
        """
        x, sigma = prepare(x, sigma)
        s = per_example(sigma, x)
        spread = 1 + (s / self.sigma_data).square()
        c_skip = spread.reciprocal()
        c_out = s * spread.rsqrt()
        c_in = spread.rsqrt() / self.sigma_data
        c_noise = sigma.clamp(min=torch.finfo(sigma.dtype).tiny).log() / 4  # finite at sigma = 0, where c_out is 0
        denoised: Tensor = c_skip * x + c_out * call_model(self.model, c_in * x, c_noise, conditioning)
        return denoised

    def draw_sigma(self, uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        r"""Noise levels for training by inverse CDF: ln sigma ~ N(-1.2, 1.2^2) (Table 1).

        Not clipped to [sigma_min, sigma_max], as in the published code.

        Example:
            >>> EDMDenoiser(None).draw_sigma(torch.tensor([0.5])).log()
            tensor([-1.2000])
        """
        normal: Tensor = torch.special.ndtri(open_interval(uniform))
        return (_P_MEAN + _P_STD * normal).exp()

    def uniform_weight(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight that makes the loss a plain squared error of F: 1 / c_out^2, which is EDM's own weighting."""
        return sigma.square().reciprocal() + 1 / self.sigma_data**2
