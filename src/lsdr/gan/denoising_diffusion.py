"""Noise at the generator's input, in data space: a generator that denoises in a few steps."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class DenoisingSchedule(nn.Module):
    r"""A diffusion in T large steps, which a generator undoes one by one.

    .. math:: q(x_t \mid x_{t-1}) = N(\sqrt{\alpha_t}\, x_{t-1},\ (1 - \alpha_t) I), \qquad
        \bar\alpha_t = \prod_{s \le t} \alpha_s
        = \exp\Bigl(-\beta_{\min} \tfrac{t}{T} - \tfrac12 (\beta_{\max} - \beta_{\min}) \tfrac{t^2}{T^2}\Bigr)

    The game: for a real x_0 and a t drawn from 1 to T, `q_sample_pair` gives (x_{t-1}, x_t). The generator guesses
    x_0 from (z, x_t, t), `posterior` makes an x_{t-1} of the guess, and the discriminator tells it from the real
    x_{t-1}, seeing x_t and t too. `sample` starts from noise and goes down from T to 0. The more is known of x_0, the
    fewer modes are left to miss: given x_t, what remains is nearly one mode, and the latent chooses within it.

    Data must have a standard deviation of about 1, or be images in [-1, 1]: at T only the factor .0066 of them is left.
    Coefficients are computed in float64 and kept in float32; none is learned or saved.

    Source: Xiao, Kreis & Vahdat 2022 (DDGAN), arXiv:2112.07804, section 3, and their schedule (the variance-preserving
    one of Song et al. 2021, arXiv:2011.13456, in T steps), but from t = 0 on: the published code begins at a continuous
    time of 0.001.

    Args:
        steps: T.
        beta_min: Rate at which the diffusion begins.
        beta_max: Rate at which it ends.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> schedule = DenoisingSchedule(steps=2)
        >>> schedule.signal  # the root of alpha-bar at t = 0, 1, 2
        tensor([1.0000, 0.2812, 0.0066])
        >>> guess = lambda z, noisy, level: torch.tanh(z + noisy)
        >>> schedule.sample(guess, torch.randn(5, 2, 3), torch.randn(5, 2, 3)).shape
        torch.Size([5, 3])
    """

    signal: Tensor
    spread: Tensor
    step_signal: Tensor
    step_spread: Tensor
    clean_factor: Tensor
    later_factor: Tensor
    posterior_spread: Tensor

    def __init__(self, steps: int = 4, beta_min: float = 0.1, beta_max: float = 20.0):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, got {steps}")
        if not 0 < beta_min <= beta_max:
            raise ValueError(f"expected 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
        self.steps, self.beta_min, self.beta_max = steps, beta_min, beta_max
        time = torch.arange(steps + 1, dtype=torch.float64) / steps
        bars = (-beta_min * time - 0.5 * (beta_max - beta_min) * time.square()).exp()
        before = torch.cat([bars[:1], bars[:-1]])
        alphas = bars / before
        # DDPM's posterior (Ho et al. 2020, arXiv:2006.11239, eqs. 6 and 7); at t = 0 it would be 0 / 0.
        rest = (1 - bars).clamp_min(torch.finfo(torch.float64).tiny)
        coefficients = {
            "signal": bars.sqrt(),
            "spread": (1 - bars).sqrt(),
            "step_signal": alphas.sqrt(),
            "step_spread": (1 - alphas).sqrt(),
            "clean_factor": before.sqrt() * (1 - alphas) / rest,
            "later_factor": alphas.sqrt() * (1 - before) / rest,
            "posterior_spread": ((1 - before) * (1 - alphas) / rest).sqrt(),
        }
        for name, values in coefficients.items():
            self.register_buffer(name, values.float(), persistent=False)

    def level(self, t: Int64[Tensor, "..."]) -> Float[Tensor, "..."]:
        """How noisy x_t is, t / T: what both networks are told."""
        return t.to(self.signal.dtype) / self.steps

    def q_sample_pair(
        self,
        clean: Float[Tensor, "b *dims"],
        t: Int64[Tensor, " b"],
        earlier_noise: Float[Tensor, "b *dims"],
        later_noise: Float[Tensor, "b *dims"],
    ) -> tuple[Float[Tensor, "b *dims"], Float[Tensor, "b *dims"]]:
        r"""Two neighbours of one real example's diffusion.

        .. math:: x_{t-1} = \sqrt{\bar\alpha_{t-1}}\, x_0 + \sqrt{1 - \bar\alpha_{t-1}}\, \varepsilon, \quad
            x_t = \sqrt{\alpha_t}\, x_{t-1} + \sqrt{1 - \alpha_t}\, \varepsilon'

        Args:
            clean: x_0.
            t: From 1 to T, one per example.
            earlier_noise: Standard normal.
            later_noise: Standard normal.

        Returns:
            x_{t-1} and x_t.

        Raises:
            ValueError: If t, on the CPU, leaves its range.
        """
        self._check(t)
        earlier = _at(self.signal, t - 1, clean) * clean + _at(self.spread, t - 1, clean) * earlier_noise
        later = _at(self.step_signal, t, clean) * earlier + _at(self.step_spread, t, clean) * later_noise
        return earlier, later

    def posterior(
        self,
        clean: Float[Tensor, "b *dims"],
        later: Float[Tensor, "b *dims"],
        t: Int64[Tensor, " b"],
        noise: Float[Tensor, "b *dims"],
    ) -> Float[Tensor, "b *dims"]:
        r"""An x_{t-1} that lies between x_0 and x_t as the diffusion has it.

        .. math:: q(x_{t-1} \mid x_t, x_0) = N\Bigl(
            \frac{\sqrt{\bar\alpha_{t-1}} (1 - \alpha_t)}{1 - \bar\alpha_t} x_0 +
            \frac{\sqrt{\alpha_t} (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t} x_t,\
            \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} (1 - \alpha_t) I \Bigr)

        At t = 1 it is x_0 itself, to the last bit.

        Args:
            clean: x_0, or the generator's guess of it.
            later: x_t.
            t: From 1 to T, one per example.
            noise: Standard normal.

        Raises:
            ValueError: If t, on the CPU, leaves its range.
        """
        self._check(t)
        mean = _at(self.clean_factor, t, clean) * clean + _at(self.later_factor, t, clean) * later
        return mean + _at(self.posterior_spread, t, clean) * noise

    def sample(
        self, generator: Any, latents: Float[Tensor, "b steps latent"], noise: Float[Tensor, "b calls *dims"]
    ) -> Float[Tensor, "b *dims"]:
        """Samples from noise, by T calls of the generator.

        Args:
            generator: Called as `generator(z, noisy=x_t, level=t / T)`; gives its guess of x_0.
            latents: z of each call, the first being that at t = T.
            noise: Standard normal: first x_T, then what `posterior` needs after each call but the last, which needs
                none.

        Returns:
            x_0.

        Raises:
            ValueError: If latents or noise are not for T calls.
        """
        if latents.shape[1] != self.steps or noise.shape[1] != self.steps or len(latents) != len(noise):
            raise ValueError(
                f"expected latents and noise for {self.steps} steps, of shape (b, {self.steps}, ...), got "
                f"{tuple(latents.shape)} and {tuple(noise.shape)}"
            )
        x = noise[:, 0]
        for call in range(self.steps):
            t = torch.full((len(x),), self.steps - call, device=x.device)
            guess = generator(latents[:, call], noisy=x, level=self.level(t))
            x = guess if call + 1 == self.steps else self.posterior(guess, x, t, noise[:, call + 1])
        return x

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return f"steps={self.steps}, beta_min={self.beta_min}, beta_max={self.beta_max}"

    def _check(self, t: Tensor) -> None:
        # On a GPU one would have to wait for the numbers.
        if t.device.type == "cpu" and len(t) and not (t.min() >= 1 and t.max() <= self.steps):
            raise ValueError(f"t must be from 1 to {self.steps}, got values from {int(t.min())} to {int(t.max())}")


def _at(coefficients: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Each example's coefficient, to multiply with it."""
    return coefficients[t].to(like.dtype).view(-1, *[1] * (like.ndim - 1))
