"""Networks by name: a generator and a discriminator for points or images of a shape."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from lsdr.gan.models.dcgan import dcgan_discriminator, dcgan_generator, stacked_discriminator, stacked_generator
from lsdr.gan.models.discriminator import Discriminator
from lsdr.gan.models.generator import Generator
from lsdr.gan.models.maxout import maxout_discriminator, maxout_generator
from lsdr.gan.models.mlp import mlp_body, points_discriminator, points_generator, residual_mlp_body
from lsdr.gan.models.parts import Parts
from lsdr.gan.models.presets import chosen_normalization, find_preset
from lsdr.gan.models.r3gan import r3gan_discriminator, r3gan_generator
from lsdr.gan.models.residual import resnet_discriminator, resnet_generator

# Width and number of hidden layers, or of blocks, of generator and discriminator; the least and the largest width;
# blocks at each size. A deep generator makes steep transitions between modes.
_MLP = {"mlp": (128, 2, 2), "mlp-deep": (96, 8, 5), "mlp-large": (256, 3, 3)}
_RESIDUAL_MLP = {"residual-mlp": (128, 4, 4)}
_DCGAN = {"dcgan": 32}
_STACKED = {"stacked-dcgan": 2, "stacked-dcgan-half": 4}
_RESNET = {"resnet-tiny": 32, "resnet-small": 128}
_R3GAN = {"r3gan-tiny": (32, 64, 1), "r3gan-small": (64, 256, 2)}
# ReLU where the published generator has it, leaky ReLU elsewhere.
_RELU = (*_DCGAN, *_STACKED, "pacgan-toy")
_LEAST_SIZE, _LEAST_FEATURES = 8, 4


def build_players(
    model: str,
    shape: tuple[int, ...],
    *,
    latent: int | None = None,
    normalization: str = "default",
    discriminator_normalization: str = "default",
    packing: int = 1,
    level: bool = False,
    denoising: bool = False,
) -> tuple[Generator, Discriminator]:
    """Build both players; initial weights are drawn from torch's global generator.

    Args:
        model: A key of `PRESETS`.
        shape: Of an example: (d,), or (channels, height, width), both sides even and at least 8.
        latent: Dimensions of the generator's latent; None for the preset's.
        normalization: In the generator: "default" for the preset's own, or one of those that it can have.
        discriminator_normalization: The same in the discriminator.
        packing: Examples that the discriminator judges together: their channels are beside each other.
        level: Whether the discriminator is told how noisy its examples are.
        denoising: Whether both take a noisy example beside their input, and are told how noisy it is.

    Returns:
        The generator, from latents of shape (N, generator.latent_dim), and the discriminator, both in training mode.

    Raises:
        ValueError: If there is no such preset, it cannot take the shape, or it has not what is asked for.

    Example:
        >>> import torch
        >>> generator, discriminator = build_players("r3gan-tiny", (3, 16, 16), packing=2)
        >>> images = generator(torch.randn(6, generator.latent_dim))
        >>> images.shape, discriminator(images.reshape(3, 6, 16, 16)).shape
        (torch.Size([6, 3, 16, 16]), torch.Size([3]))
    """
    preset = find_preset(model, _kind(shape))
    latent = (preset.latent or shape[0]) if latent is None else latent
    if latent < 1 or packing < 1:
        raise ValueError(f"expected at least one latent dimension and one example to judge, got {latent} and {packing}")
    if denoising and not preset.denoising:
        raise ValueError(f"model {model!r} is a published one and takes no noisy example: denoise with another")
    first = Parts(chosen_normalization(model, "generator", normalization), 0.0 if model in _RELU else 0.2)
    second = Parts(chosen_normalization(model, "discriminator", discriminator_normalization))
    build = _points if preset.data == "points" else _images
    generator, discriminator = build(model, shape, latent, packing, level, denoising, first, second)
    return generator, discriminator


def _points(
    model: str, shape: tuple[int, ...], latent: int, packing: int, level: bool, denoising: bool, one: Parts, two: Parts
) -> tuple[Generator, Discriminator]:
    (dimensions,) = shape
    if model == "pacgan-toy":
        generator = maxout_generator(dimensions, latent, one)
        return generator, maxout_discriminator(packing * dimensions, level, two)
    body: Callable[[int, int, Parts], nn.Sequential] = mlp_body if model in _MLP else residual_mlp_body
    width, layers, judging = (_MLP | _RESIDUAL_MLP)[model]
    return (
        points_generator(body(width, layers, one), width, dimensions, latent, denoising, one),
        points_discriminator(body(width, judging, two), width, packing * dimensions, level, denoising, two),
    )


def _images(
    model: str, shape: tuple[int, ...], latent: int, packing: int, level: bool, denoising: bool, one: Parts, two: Parts
) -> tuple[Generator, Discriminator]:
    channels, height, width = shape
    if model in _STACKED:
        sizes = [(height, width)]
        for _ in range(3):
            sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
        generator = stacked_generator(sizes, channels, latent, one)
        return generator, stacked_discriminator(sizes, packing * channels, _STACKED[model], level, two)
    sizes = _halvings(height, width)
    if model in _R3GAN:
        least, largest, blocks = _R3GAN[model]
        widths = [min(largest, least * 2**place) for place in reversed(range(len(sizes)))]
        return (
            r3gan_generator(sizes, channels, widths, blocks, latent, denoising, one),
            r3gan_discriminator(sizes, packing * channels, widths, blocks, level, denoising, two),
        )
    make, judge = (
        (dcgan_generator, dcgan_discriminator) if model in _DCGAN else (resnet_generator, resnet_discriminator)
    )
    features = (_DCGAN | _RESNET)[model]
    return (
        make(sizes, channels, features, latent, denoising, one),
        judge(sizes, packing * channels, features, level, denoising, two),
    )


def _kind(shape: tuple[int, ...]) -> Literal["points", "images"]:
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(f"an example is a point (d,) or an image (channels, height, width), got shape {shape}")
    least = max(_LEAST_SIZE, min(shape[-2:]) // 2 * 2)
    if len(shape) == 3 and (min(shape[1:]) < _LEAST_SIZE or shape[1] % 2 or shape[2] % 2):
        raise ValueError(
            f"images must have even sides of at least {_LEAST_SIZE}, got {shape[1]}x{shape[2]}: choose another "
            f"size, for example size={least} (--size {least})"
        )
    return "points" if len(shape) == 1 else "images"


def _halvings(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes from the smallest to the image's own: halved while both sides are even and stay four or more."""
    sizes = [(height, width)]
    while not (sizes[0][0] % 2 or sizes[0][1] % 2) and min(sizes[0]) >= 2 * _LEAST_FEATURES:
        sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
    return sizes
