"""Sequences of noise levels for samplers: n levels from high to low, then zero."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.flow import FlowDenoiser


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Float[Tensor, " n_plus_1"]:
    r"""Noise levels evenly spaced in sigma^(1/rho): short steps at low noise.

    .. math:: \sigma_i = \Bigl(\sigma_{\max}^{1/\rho} +
        \tfrac{i}{n-1}\bigl(\sigma_{\min}^{1/\rho} - \sigma_{\max}^{1/\rho}\bigr)\Bigr)^{\rho},\quad \sigma_n = 0

    Source: Karras et al. 2022, eq. 5.

    Args:
        n: Number of steps; n = 1 goes from sigma_max to 0 at once.
        sigma_min: The last level before 0.
        sigma_max: The first level.
        rho: The exponent; 1 is even spacing.

    Returns:
        n + 1 levels, float32 on the CPU; the first is sigma_max, the last is 0.

    Raises:
        ValueError: If n < 1 or not 0 < sigma_min < sigma_max.

    Example:
        >>> karras_sigmas(3, 0.5, 8.0, rho=1.0)
        tensor([8.0000, 4.2500, 0.5000, 0.0000])
    """
    _check_steps(n)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return _then_zero(sigmas)


def ddpm_sigmas(denoiser: DDPMDenoiser, n: int) -> Float[Tensor, " n_plus_1"]:
    r"""Noise levels at n evenly spaced timesteps of the denoiser's own table, the last timestep first ("trailing").

    .. math:: t_i = \mathrm{round}\bigl(T - iT/n\bigr) - 1

    Source: Lin et al. 2024, Table 2, "trailing", the one spacing that begins at t = T - 1.

    Args:
        denoiser: Gives the table.
        n: Number of steps, at most the length of the table.

    Returns:
        n + 1 levels, float32 on the CPU; the last is 0.

    Raises:
        ValueError: If n < 1 or n is larger than the table.

    Example:
        >>> ddpm_sigmas(DDPMDenoiser(None, torch.tensor([0.9, 0.8, 0.5, 0.2])), 2)
        tensor([2.0000, 0.5000, 0.0000])
    """
    _check_steps(n)
    total = len(denoiser.sigmas)
    if n > total:
        raise ValueError(f"{n} steps asked of a table of {total} timesteps; use at most {total}, or karras_sigmas")
    timesteps = [round(total - i * total / n) - 1 for i in range(n)]
    return _then_zero(denoiser.sigmas[timesteps])


def flow_sigmas(n: int) -> Float[Tensor, " n_plus_1"]:
    r"""Noise levels evenly spaced in the time t = sigma / (1 + sigma) of a flow.

    .. math:: t_i = (1 - i/n)\, t_{\max}, \quad \sigma_i = t_i / (1 - t_i), \quad t_{\max} = 1 - 10^{-4}

    Euler on these levels is Euler on the flow's own ODE with equal steps of t (see `euler`).

    Args:
        n: Number of steps.

    Returns:
        n + 1 levels, float32 on the CPU; the last is 0.

    Raises:
        ValueError: If n < 1.

    Example:
        >>> flow_sigmas(2)
        tensor([9.9990e+03, 9.9980e-01, 0.0000e+00])
    """
    _check_steps(n)
    t_max = FlowDenoiser.sigma_max / (1 + FlowDenoiser.sigma_max)
    t = t_max * (1 - torch.arange(n, dtype=torch.float64) / n)
    return _then_zero(t / (1 - t))


def next_sigma(sigma: float, sigmas: Float[Tensor, " levels"]) -> float:
    """The level that a sampler's step from `sigma` leads to: its highest level below.

    Args:
        sigma: A noise level, of the sampler or not.
        sigmas: The sampler's levels, ending at 0.

    Returns:
        The level; 0 where there is none below. A level that equals sigma but for rounding is not below.

    Example:
        >>> next_sigma(2.0, torch.tensor([8.0, 2.0, 0.5, 0.0])), next_sigma(0.1, torch.tensor([2.0, 0.5, 0.0]))
        (0.5, 0.0)
    """
    return max((level for level in sigmas.tolist() if level < sigma * (1 - 1e-5)), default=0.0)


def begin(
    noise: Float[Tensor, "b *dims"], sigmas: Float[Tensor, " levels"]
) -> tuple[Float[Tensor, "b *dims"], Float[Tensor, " levels"]]:
    """What every sampler begins with: the levels checked, and the noise scaled to the first of them.

    Args:
        noise: Unit normal noise.
        sigmas: Strictly descending, not negative, at least two. The device is read once to check this.

    Returns:
        The noisy images at sigmas[0], float32 or better, and the levels on the same device.

    Raises:
        ValueError: If the levels are not such.

    Example:
        >>> begin(torch.ones(1, 1, 1, 1), torch.tensor([2.0, 0.0]))[0]
        tensor([[[[2.]]]])
    """
    levels = sigmas.tolist()
    if len(levels) < 2 or not all(a > b >= 0 for a, b in pairwise(levels)):
        raise ValueError(f"sigmas must be two or more strictly descending levels >= 0, usually ending at 0: {levels}")
    dtype = torch.promote_types(noise.dtype, torch.float32)
    sigmas = sigmas.to(dtype).to(noise.device)
    return noise.to(dtype) * sigmas[0], sigmas


def _check_steps(n: int) -> None:
    if n < 1:
        raise ValueError(f"the number of steps is {n}; it must be at least 1")


def _then_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
