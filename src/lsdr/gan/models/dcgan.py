"""Plain convolutional networks for images: DCGAN's, and the published ones for stacked digits."""

from itertools import pairwise

from torch import nn

from lsdr.gan.models.discriminator import Discriminator
from lsdr.gan.models.generator import Generator, NoisyInput
from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts

_DEVIATION = 0.02
_STACKED = (64, 32, 16, 8)
_STACKED_SLOPE = 0.3

Size = tuple[int, int]


def dcgan_generator(
    sizes: list[Size], channels: int, width: int, latent: int, denoising: bool, parts: Parts
) -> Generator:
    """A transposed 4x4 convolution for each doubling of the size, the last of them to the image; tanh.

    Source: Radford et al. 2016 (arXiv:1511.06434), section 3: batch norm and ReLU behind all but the last layer.
    """
    widths = [width * 2**place for place in reversed(range(len(sizes) - 1))]
    stem = _stem(latent, widths[0], sizes[0])
    stages = []
    for place, inputs in enumerate(widths):
        doubling = [nn.ConvTranspose2d(inputs, each, 4, 2, 1) for each in widths[place + 1 : place + 2]]
        stages.append(nn.Sequential(*parts.norm(inputs, 2), parts.activation(), *doubling))
    head = nn.Sequential(nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh())
    noisy = [
        NoisyInput(channels, each, sizes[-1][0] // height, parts)
        for each, (height, _) in zip(widths, sizes[:-1], strict=True)
        if denoising
    ]
    level = LevelEmbedding(widths[0], 3, parts) if denoising else None
    generator = Generator(stem, stages, head, latent, noisy, level, parts)
    parts.initialise(generator, _DEVIATION)
    return generator


def dcgan_discriminator(
    sizes: list[Size], channels: int, width: int, level: bool, denoising: bool, parts: Parts
) -> Discriminator:
    """A 4x4 convolution for each halving of the size, then one over all that is left; leaky ReLU.

    Source: as `dcgan_generator`, whose discriminator has batch norm behind all but the first and the last layer.
    """
    widths = [width * 2**place for place in range(len(sizes) - 1)]
    stem = nn.Conv2d(channels * (2 if denoising else 1), widths[0], 4, 2, 1)
    body: list[nn.Module] = [parts.activation()]
    for inputs, outputs in pairwise(widths):
        body += [nn.Conv2d(inputs, outputs, 4, 2, 1), *parts.norm(outputs, 2), parts.activation()]
    head = nn.Sequential(nn.Flatten(), nn.Linear(widths[-1] * sizes[0][0] * sizes[0][1], 1))
    embedding = LevelEmbedding(widths[0], 3, parts) if level or denoising else None
    discriminator = Discriminator(stem, nn.Sequential(*body), head, embedding, denoising, parts)
    parts.initialise(discriminator, _DEVIATION)
    return discriminator


def stacked_generator(sizes: list[Size], channels: int, latent: int, parts: Parts) -> Generator:
    """Three transposed 3x3 convolutions of stride 2 and a convolution, batch norm and ReLU in front of each; tanh.

    Source: Metz et al. 2017 (arXiv:1611.02163), appendix, as in PacGAN's code (Lin et al. 2018): 287,875 parameters.
    """
    stem = _stem(latent, _STACKED[0], sizes[0])
    stages = []
    for place, inputs in enumerate(_STACKED):
        doubling: list[nn.Module] = []
        for outputs in _STACKED[place + 1 : place + 2]:
            height, width = (after - 2 * before + 1 for before, after in zip(*sizes[place : place + 2], strict=True))
            doubling.append(nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=(height, width)))
        stages.append(nn.Sequential(*parts.norm(inputs, 2), parts.activation(), *doubling))
    head = nn.Sequential(nn.Conv2d(_STACKED[-1], channels, 3, padding=1), nn.Tanh())
    generator = Generator(stem, stages, head, latent, (), None, parts)
    parts.initialise(generator, _DEVIATION)
    return generator


def stacked_discriminator(sizes: list[Size], channels: int, width: int, level: bool, parts: Parts) -> Discriminator:
    """Three 3x3 convolutions of stride 2, batch norm and leaky ReLU of slope 0.3 behind each, and a linear layer.

    Source: as `stacked_generator`.

    Args:
        sizes: Of the image and of what each convolution leaves, smallest first.
        channels: Of what is judged.
        width: Channels of the first convolution: 2 is a quarter of the generator's, 4 half.
        level: Whether it is told the level of noise.
        parts: Makes the layers.
    """
    parts = Parts(parts.normalization, _STACKED_SLOPE)
    body: list[nn.Module] = [*parts.norm(width, 2), parts.activation()]
    for inputs in (width, 2 * width):
        body += [nn.Conv2d(inputs, 2 * inputs, 3, 2, 1), *parts.norm(2 * inputs, 2), parts.activation()]
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * width * sizes[0][0] * sizes[0][1], 1))
    embedding = LevelEmbedding(width, 3, parts) if level else None
    stem = nn.Conv2d(channels, width, 3, 2, 1)
    discriminator = Discriminator(stem, nn.Sequential(*body), head, embedding, False, parts)
    parts.initialise(discriminator, _DEVIATION)
    return discriminator


def _stem(latent: int, width: int, size: Size) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latent, width * size[0] * size[1]), nn.Unflatten(1, (width, *size)))
