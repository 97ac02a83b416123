"""Noise on the generator's latent."""

import torch
from jaxtyping import Float
from torch import Tensor


def latent_noise(
    z: Float[Tensor, "b *dims"],
    strength: Float[Tensor, "..."] | float,
    *,
    noise: Float[Tensor, "b *dims"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *dims"]:
    r"""Mix a standard normal latent with noise so that it stays standard normal.

    .. math:: z' = \sqrt{1 - s^2}\, z + s\, \varepsilon, \qquad z, \varepsilon \sim N(0, I)

    Since z' has the law of z, the generator sees nothing new: this alone changes nothing about training, and has no
    mismatch between training and sampling. (Noise that is only added, z + s eps, is a rescaled prior and no more.) It
    says something only together with a term in which z and z' both occur, such as `mode_seeking` or
    `lsdr.gan.consistency.latent_spread`: the correlation of z' with z is the root of 1 - s^2 in every dimension.

    Args:
        z: Latents, standard normal.
        strength: s in [0, 1], for all or one per example; at 0 z comes back as it is.
        noise: The standard normal noise, shaped like z; drawn if None.
        generator: Where it is drawn from; None is torch's global generator.

    Raises:
        ValueError: If a strength given as a number is not in [0, 1].

    Example:
        >>> latent_noise(torch.tensor([[3.0]]), 0.8, noise=torch.tensor([[1.0]]))
        tensor([[2.6000]])
    """
    if not isinstance(strength, Tensor):
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be in [0, 1], got {strength}: the noise's share of the standard deviation")
        strength = torch.tensor(strength, dtype=z.dtype, device=z.device)
    if noise is None:
        noise = torch.randn(z.shape, dtype=z.dtype, generator=generator, device=(generator or z).device).to(z.device)
    s = strength.to(z.dtype).reshape(strength.shape + (1,) * (z.ndim - 1 if strength.ndim else 0))
    return (1 - s.square()).clamp_min(0).sqrt() * z + s * noise
