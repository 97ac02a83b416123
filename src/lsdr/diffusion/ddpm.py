"""Networks trained under a DDPM-type schedule: they predict the noise, the velocity or the clean sample."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.call_model import call_model
from lsdr.diffusion.denoiser import Conditioning, per_example, prepare

_PREDICTIONS = {"epsilon": "epsilon", "v": "v", "v_prediction": "v", "sample": "sample"}
_SMALLEST_ALPHA = 2.0**-24


@dataclass(frozen=True, eq=False)
class DDPMDenoiser:
    r"""A network on discrete timesteps, x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, as a denoiser.

    With :math:`\sigma_t = \sqrt{(1-\bar\alpha_t)/\bar\alpha_t}` and :math:`x_t = x/\sqrt{1+\sigma^2}`:

    .. math::
        D = x - \sigma\,\hat\epsilon, \qquad D = \frac{x}{1+\sigma^2} - \frac{\sigma}{\sqrt{1+\sigma^2}}\,\hat v,
        \qquad D = \hat x_0

    A sigma that is in the table gives its timestep exactly; between two of them the timestep is interpolated linearly
    in log sigma, outside the table it stays at the end (so does k-diffusion). At sigma = 0 the result is x exactly.
    Errors of a noise prediction grow with sigma in D (157 times at the end of DDPM's linear schedule); v and sample do
    not have this.

    Zero terminal signal-to-noise ratio (abar_T = 0, Lin et al. 2024): sigma is infinite there, so abar_T is taken as
    2^-24 (sigma_max = 4096), or as a quarter of its neighbour where that is already smaller. Deviation: with the linear
    schedule diffusers' Euler scheduler puts 2^-24 above its neighbour, and its sigmas are out of order (15406, 4096).
    Noise prediction cannot work there, because x_T holds no trace of x_0: it is refused.

    Source: Ho, Jain & Abbeel 2020, eq. 4 (epsilon); Salimans & Ho 2022, section 4 (v); Lin, Liu, Li & Yang 2024,
    "Common diffusion noise schedules and sample steps are flawed"; k-diffusion, external.py, for sigma_to_t.

    Args:
        model: The network, called as described in `call_model`; its time is the timestep as a float, 0 .. T-1.
        alphas_cumprod: The table abar_t, shape (T,), strictly decreasing, in [0, 1).
        prediction: What the network predicts: "epsilon", "v" or "sample".

    Raises:
        ValueError: If the table is not such a table, the prediction is unknown, or it is "epsilon" and abar_T = 0.

    Example:
        >>> denoise = DDPMDenoiser(lambda x, t: torch.zeros_like(x), torch.tensor([0.8, 0.5, 0.2]), "v")
        >>> denoise.sigma_min, denoise.sigma_max
        (0.5, 2.0)
        >>> denoise(torch.ones(1, 1, 1, 1), torch.tensor(1.0))
        tensor([[[[0.5000]]]])
    """

    model: Any
    alphas_cumprod: Float[Tensor, " t"]
    prediction: Literal["epsilon", "v", "sample"] = "epsilon"
    sigmas: Float[Tensor, " t"] = field(init=False)
    """The table of noise levels, float64 on the CPU, increasing."""

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v", "sample"):
            raise ValueError(f"prediction is {self.prediction!r}; expected 'epsilon', 'v' or 'sample'")
        alphas = self.alphas_cumprod.detach().cpu().double().clone()
        if len(alphas) < 2 or not bool(((alphas >= 0) & (alphas < 1)).all()) or not bool((alphas.diff() < 0).all()):
            raise ValueError(
                "alphas_cumprod must hold at least two values in [0, 1), strictly decreasing, "
                f"got {len(alphas)} from {alphas[:1].tolist()} to {alphas[-1:].tolist()}"
            )
        if alphas[-1] == 0:
            if self.prediction == "epsilon":
                raise ValueError(
                    "the schedule has zero terminal signal-to-noise ratio (alphas_cumprod ends at 0) and the network "
                    "predicts epsilon: x_T is pure noise, so the clean sample cannot be had from it. Use a network "
                    "that predicts v or sample, or a schedule without rescale_betas_zero_snr"
                )
            alphas[-1] = _SMALLEST_ALPHA if alphas[-2] > _SMALLEST_ALPHA else alphas[-2] / 4
        object.__setattr__(self, "sigmas", ((1 - alphas) / alphas).sqrt())

    @classmethod
    def from_scheduler(cls, model: Any, scheduler: Any) -> "DDPMDenoiser":
        """Take the table and the kind of prediction from a diffusers scheduler (DDPM, DDIM, Euler, DPM-Solver, ...).

        Args:
            model: The network.
            scheduler: Any diffusers scheduler with `alphas_cumprod` and `config.prediction_type`.

        Raises:
            ValueError: If it is no DDPM-type scheduler, or its kind of prediction is unknown.

        Example:
            >>> from diffusers import DDPMScheduler
            >>> DDPMDenoiser.from_scheduler(None, DDPMScheduler()).sigma_max
            157.407269
        """
        alphas = getattr(scheduler, "alphas_cumprod", None)
        kind = getattr(getattr(scheduler, "config", None), "prediction_type", None)
        if alphas is None or kind not in _PREDICTIONS:
            raise ValueError(
                f"{type(scheduler).__name__} with prediction_type={kind!r} is not a DDPM-type scheduler that we know; "
                "expected alphas_cumprod and a prediction_type of epsilon, v_prediction or sample "
                "(for flow matching use FlowDenoiser)"
            )
        if getattr(scheduler.config, "rescale_betas_zero_snr", False):
            alphas = alphas.clone()
            alphas[-1] = 0.0  # the Euler scheduler has put 2^-24 here, sometimes above its neighbour
        return cls(model, alphas, _PREDICTIONS[kind])  # type: ignore[arg-type]

    @property
    def sigma_min(self) -> float:
        """The noise level of timestep 0."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The noise level of the last timestep."""
        return float(self.sigmas[-1])

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
        alpha = (1 + s.square()).rsqrt()  # sqrt(abar)
        output = call_model(self.model, alpha * x, self.timestep(sigma), conditioning)
        if self.prediction == "epsilon":
            return x - s * output
        if self.prediction == "v":
            return alpha.square() * x - s * alpha * output
        return torch.where(s > 0, output, x)

    def timestep(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The timestep of a noise level: exact on the table, linear in log sigma between, held at the ends.

        Example:
            >>> DDPMDenoiser(None, torch.tensor([0.8, 0.5, 0.2])).timestep(torch.tensor([0.0, 0.5, 1.5, 2.0, 9.0]))
            tensor([0.0000, 0.0000, 1.5850, 2.0000, 2.0000])
        """
        table = self.sigmas.to(sigma.dtype).to(sigma.device, non_blocking=True)
        sigma = sigma.clamp(table[0], table[-1]).contiguous()
        upper = torch.searchsorted(table, sigma).clamp(min=1)
        low, high = table[upper - 1], table[upper]
        return upper - 1 + (sigma / low).log() / (high / low).log()  # on the table the quotient is 0 or 1 exactly

    def draw_sigma(self, uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Noise levels for training: uniform over the timesteps of the table (Ho et al. 2020, Algorithm 1).

        Example:
            >>> DDPMDenoiser(None, torch.tensor([0.8, 0.5, 0.2])).draw_sigma(torch.tensor([0.0, 0.4, 0.99]))
            tensor([0.5000, 1.0000, 2.0000])
        """
        table = self.sigmas.to(uniform.dtype).to(uniform.device, non_blocking=True)
        return table[(uniform * len(table)).long().clamp(0, len(table) - 1)]

    def uniform_weight(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight that makes the loss a plain squared error of what the network predicts (sigma > 0).

        1 / sigma^2 for epsilon, (1 + sigma^2) / sigma^2 for v, 1 for sample; finite as sigma grows without bound.
        """
        if self.prediction == "epsilon":
            return 1 / sigma.square()
        if self.prediction == "v":
            return 1 + 1 / sigma.square()
        return torch.ones_like(sigma)
