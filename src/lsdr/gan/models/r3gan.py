"""R3GAN's networks: residual blocks without normalisation, Fixup's initialisation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.gan.models.discriminator import Discriminator
from lsdr.gan.models.generator import Generator, NoisyInput
from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts
from lsdr.gan.models.residual import Residual, initialise_residual

_EXPANSION, _GROUP = 2, 16


def r3gan_block(width: int, parts: Parts) -> Residual:
    r"""R3GAN's block: 1x1 to twice the channels, 3x3 in groups of 16 of them, 1x1 back.

    .. math:: x + W_3 \, \phi(W_2 * \phi(W_1 x + b_1) + b_2)

    with leaky ReLUs :math:`\phi` of slope 0.2. No activation precedes the first layer.

    Source: Huang et al. 2024 (arXiv:2501.05441), section 3.2 and appendix: inverted bottleneck, grouped convolution, no
    normalisation, biases only in front of activations, Fixup's initialisation of weights.

    Args:
        width: Channels, a multiple of 8.
        parts: Makes the layers. A normalisation stands at the start of the branch.

    Raises:
        ValueError: If the channels cannot be grouped.
    """
    inner = _EXPANSION * width
    if inner % _GROUP:
        raise ValueError(f"the width must be a multiple of {_GROUP // _EXPANSION}, got {width}")
    branch = nn.Sequential(
        *parts.norm(width, 2),
        parts.convolution(width, inner, 1),
        parts.activation(),
        parts.convolution(inner, inner, 3, groups=inner // _GROUP, activated=True),
        parts.activation(),
        parts.convolution(inner, width, 1, bias=False, activated=True),
    )
    return Residual(branch, parts)


class Basis(nn.Module):
    """A learned picture for each channel, times the channel's number."""

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        self.pictures = nn.Parameter(torch.randn(channels, height, width))

    def forward(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "n c h w"]:
        """Multiply."""
        return x[:, :, None, None] * self.pictures


def r3gan_generator(
    sizes: list[tuple[int, int]],
    channels: int,
    widths: list[int],
    blocks: int,
    latent: int,
    denoising: bool,
    parts: Parts,
) -> Generator:
    """Blocks at each size, a 1x1 convolution and bilinear doubling between them, a 1x1 convolution to the image.

    Source: as `r3gan_block`. The features at the smallest size are a learned picture, weighted by the latent. Tanh
    behind the last convolution is ours: pixels are in (-1, 1).
    """
    stem = nn.Sequential(
        *parts.ones(), parts.linear(latent + len(parts.ones()), widths[0]), Basis(widths[0], *sizes[0])
    )
    stages = []
    for place, width in enumerate(widths):
        doubling: list[nn.Module] = []
        for after in widths[place + 1 : place + 2]:
            # A 1x1 convolution is the same in front of the doubling and behind it, and cheaper in front.
            doubling = [parts.convolution(width, after, 1, bias=False), nn.Upsample(scale_factor=2, mode="bilinear")]
        stages.append(nn.Sequential(*(r3gan_block(width, parts) for _ in range(blocks)), *doubling))
    noisy = [
        NoisyInput(channels, width, sizes[-1][0] // height, parts)
        for width, (height, _) in zip(widths, sizes, strict=True)
        if denoising
    ]
    level = LevelEmbedding(widths[0], 3, parts) if denoising else None
    head = nn.Sequential(parts.last(nn.Conv2d(widths[-1], channels, 1)), nn.Tanh())
    generator = Generator(stem, stages, head, latent, noisy, level, parts)
    initialise_residual(generator, parts)
    return generator


def r3gan_discriminator(
    sizes: list[tuple[int, int]],
    channels: int,
    widths: list[int],
    blocks: int,
    level: bool,
    denoising: bool,
    parts: Parts,
) -> Discriminator:
    """The generator's mirror image: halving by averages, and a weight for each channel and position at the end.

    Source: as `r3gan_block`.
    """
    inputs = channels * (2 if denoising else 1) + len(parts.ones())
    stem = nn.Sequential(*parts.ones(), parts.convolution(inputs, widths[-1], 1))
    body: list[nn.Module] = []
    for place in reversed(range(len(widths))):
        body += [r3gan_block(widths[place], parts) for _ in range(blocks)]
        if place:
            body += [nn.AvgPool2d(2), parts.convolution(widths[place], widths[place - 1], 1, bias=False)]
    # Each channel against a learned picture of its own.
    basis = nn.Conv2d(widths[0], widths[0], sizes[0], groups=widths[0], bias=False)
    head = nn.Sequential(parts.keep(basis, False), nn.Flatten(), parts.last(nn.Linear(widths[0], 1, bias=False)))
    embedding = LevelEmbedding(widths[-1], 3, parts) if level or denoising else None
    discriminator = Discriminator(stem, nn.Sequential(*body), head, embedding, denoising, parts)
    initialise_residual(discriminator, parts)
    return discriminator
