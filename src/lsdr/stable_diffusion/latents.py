"""From pixels to latents as the network wants them, and back."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.stable_diffusion.parts import config_of


@torch.no_grad()
def encode_pixels(
    vae: nn.Module, pixels: Float[Tensor, "b 3 h w"]
) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b c y x"]]:
    r"""Mean and standard deviation of the latents' posterior, scaled as the network wants them.

    .. math:: z = (\text{posterior} - \text{shift}) \cdot \text{scale}

    with the VAE configuration's scaling_factor and shift_factor (0 where it has none); where it has latents_mean and
    latents_std, :math:`z = (\text{posterior} - \text{mean}) \cdot \text{scale} / \text{std}`, channel by channel. Over
    photographs z has about unit variance, which is what the scale is for (Rombach et al. 2022, section G). The sample
    to train on is mean + std * noise.

    One image at a time (the VAE's slicing), in float32 whatever autocast says: SDXL's VAE overflows in fp16.

    Args:
        vae: A diffusers AutoencoderKL.
        pixels: Values in [-1, 1]; sides are multiples of the VAE's downscaling (8).

    Returns:
        Mean and standard deviation, each (b, channels, h / 8, w / 8), float32, on the VAE's device.

    Raises:
        ValueError: If the sides are no such multiples.
    """
    step = 2 ** (len(config_of(vae).block_out_channels) - 1)
    if pixels.shape[-2] % step or pixels.shape[-1] % step or 0 in pixels.shape:
        raise ValueError(f"pixels have shape {tuple(pixels.shape)}; height and width must be multiples of {step}")
    shift, scale = _frame(vae)
    with _sliced(vae, pixels) as given:
        posterior = vae.encode(given).latent_dist  # type: ignore[operator]
        return ((posterior.mean - shift) * scale).float(), (posterior.std * scale).float()


@torch.no_grad()
def decode_latents(vae: nn.Module, z: Float[Tensor, "b c y x"]) -> Float[Tensor, "b 3 h w"]:
    """Pixels of latents in the network's units; the inverse of `encode_pixels` as far as the VAE has one.

    Args:
        vae: A diffusers AutoencoderKL.
        z: Latents, scaled and shifted.

    Returns:
        Pixels, clamped to [-1, 1], float32, on the VAE's device.
    """
    shift, scale = _frame(vae)
    with _sliced(vae, z) as given:
        pixels: Tensor = vae.decode(given / scale + shift, return_dict=False)[0]  # type: ignore[operator]
        return pixels.float().clamp(-1, 1)


def _frame(vae: nn.Module) -> tuple[Tensor, Tensor]:
    """Shift and scale that take the VAE's own latents to the network's; one for all channels, or one for each."""
    config = config_of(vae)
    like = next(vae.parameters())
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    shift = torch.tensor(getattr(config, "shift_factor", None) or 0.0, dtype=torch.float32, device=like.device)
    scale = torch.tensor(config.scaling_factor, dtype=torch.float32, device=like.device)
    if mean is not None and deviation is not None:
        shift = torch.tensor(mean, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)
        scale = scale / torch.tensor(deviation, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)
    return shift, scale


@contextlib.contextmanager
def _sliced(vae: nn.Module, given: Tensor) -> Iterator[Tensor]:
    """The VAE set to one image at a time and to evaluation, and what it is given on its device; all as before after."""
    like = next(vae.parameters())
    autoencoder: Any = vae
    slicing, training = autoencoder.use_slicing, vae.training
    autoencoder.use_slicing = True
    try:
        with torch.autocast(device_type=like.device.type, enabled=False):
            if training:
                vae.eval()
            yield given.to(like)
    finally:
        autoencoder.use_slicing = slicing
        if training:
            vae.train(training)
