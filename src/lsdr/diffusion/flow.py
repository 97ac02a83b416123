"""Flow matching on the straight path from data to noise (rectified flow)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.call_model import call_model
from lsdr.diffusion.denoiser import Conditioning, open_interval, per_example, prepare

_LAST = 1 - 1e-4  # the largest t: at t = 1 sigma is infinite


@dataclass(frozen=True, eq=False)
class FlowDenoiser:
    r"""A network that predicts the velocity u = eps - x_0 on the path x_t = (1 - t) x_0 + t eps, as a denoiser.

    .. math:: t = \frac{\sigma}{1+\sigma},\quad x_t = \frac{x}{1+\sigma},\qquad D = x_t - t\,u(x_t, 1000\,t)

    The network's time is 1000 t, as in Stable Diffusion 3 and diffusers' FlowMatch schedulers, so that one embedding of
    timesteps serves both families. At sigma = 0 the result is x exactly. t stays at or below 1 - 1e-4.

    Source: Lipman et al. 2023; Liu, Gong & Liu 2023 (the straight path); Esser et al. 2024, "Scaling rectified flow
    transformers", section 3.1 (logit-normal times).

    Args:
        model: The network, called as described in `call_model`.

    Example:
        >>> denoise = FlowDenoiser(lambda x, t: torch.zeros_like(x))
        >>> denoise(torch.ones(1, 1, 1, 1), torch.tensor(1.0))
        tensor([[[[0.5000]]]])
    """

    model: Any
    sigma_min: ClassVar[float] = 1e-4
    sigma_max: ClassVar[float] = _LAST / (1 - _LAST)

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
        t = sigma / (1 + sigma)
        x_t = x / (1 + per_example(sigma, x))
        denoised: Tensor = x_t - per_example(t, x) * call_model(self.model, x_t, 1000 * t, conditioning)
        return denoised

    def draw_sigma(self, uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Noise levels for training: t logit-normal(0, 1), which is the same as ln sigma ~ N(0, 1), by inverse CDF.

        Example:
            >>> FlowDenoiser(None).draw_sigma(torch.tensor([0.0, 0.5]))
            tensor([0.0044, 1.0000])
        """
        normal: Tensor = torch.special.ndtri(open_interval(uniform))
        return normal.exp().clamp(max=self.sigma_max)

    def uniform_weight(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight that makes the loss a plain squared error of the velocity: 1 / t^2 (sigma > 0)."""
        return (sigma.reciprocal() + 1).square()
