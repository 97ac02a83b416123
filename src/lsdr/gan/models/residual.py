"""Residual networks for images, after SN-GAN's, and the block that they and others are made of."""

from torch import Tensor, nn

from lsdr.gan.fixup import fixup_
from lsdr.gan.models.discriminator import Discriminator
from lsdr.gan.models.generator import Generator, NoisyInput
from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts

_BRANCH_SHARE = 0.3  # Karras et al. 2024, section 2.4


class Residual(nn.Module):
    r"""A residual block: :math:`x + f(x)`, with the branch f.

    Where layers preserve magnitudes, the two are averaged so that the sum does as well.
    """

    def __init__(self, branch: nn.Sequential, parts: Parts):
        super().__init__()
        self.branch, self._parts = branch, parts

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to what it came from."""
        return self._parts.add(x, self.branch(x), _BRANCH_SHARE)


def initialise_residual(network: nn.Module, parts: Parts) -> None:
    """Weights keep the variance, in branches as He et al. 2015 (arXiv:1502.01852) do, or as Fixup does."""
    parts.initialise(network)
    if parts.normalization == "fixup":
        fixup_(network, "*.branch", parts.slope)
    elif not parts.preserving:
        for layer in [each for name, each in network.named_modules() if ".branch." in name]:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, parts.slope)


def resnet_generator(
    sizes: list[tuple[int, int]], channels: int, width: int, latent: int, denoising: bool, parts: Parts
) -> Generator:
    """One block for each doubling of the size, then a convolution and tanh.

    Source: Miyato et al. 2018 (arXiv:1802.05957), table 3. A generator that denoises has one more block, at full size.
    """
    stem = nn.Sequential(
        *parts.ones(), parts.linear(latent + len(parts.ones()), width * sizes[0][0] * sizes[0][1]),
        nn.Unflatten(1, (width, *sizes[0])),
    )  # fmt: skip
    stages: list[nn.Module] = [nn.Sequential(nn.Upsample(scale_factor=2), _block(width, parts)) for _ in sizes[1:]]
    if denoising:
        stages.append(_block(width, parts))
    noisy = [NoisyInput(channels, width, sizes[-1][0] // height, parts) for height, _ in sizes] if denoising else []
    last = parts.last(nn.Conv2d(width, channels, 3, padding=1))
    head = nn.Sequential(*parts.norm(width, 2), parts.activation(), last, nn.Tanh())
    level = LevelEmbedding(width, 3, parts) if denoising else None
    generator = Generator(stem, stages, head, latent, noisy, level, parts)
    initialise_residual(generator, parts)
    return generator


def resnet_discriminator(
    sizes: list[tuple[int, int]], channels: int, width: int, level: bool, denoising: bool, parts: Parts
) -> Discriminator:
    """One block for each halving of the size and one at the smallest, then the mean over positions and a linear layer.

    Source: Miyato et al. 2018 (arXiv:1802.05957), table 3, there with a convolution of the activations first, a second
    block at the smallest size and the sum over positions.
    """
    ones = parts.ones()
    inputs = channels * (2 if denoising else 1) + len(ones)
    blocks = [layer for _ in sizes[1:] for layer in (_block(width, parts), nn.AvgPool2d(2))]
    blocks.append(_block(width, parts))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), parts.last(nn.Linear(width, 1)))
    body = nn.Sequential(*blocks, *parts.norm(width, 2), parts.activation())
    embedding = LevelEmbedding(width, 3, parts) if level or denoising else None
    stem = nn.Sequential(*ones, parts.convolution(inputs, width, 3))
    discriminator = Discriminator(stem, body, head, embedding, denoising, parts)
    initialise_residual(discriminator, parts)
    return discriminator


def _block(width: int, parts: Parts) -> Residual:
    """Two convolutions, activations first.

    The published blocks double in front of the branch's first convolution, or halve behind its second, and do the same
    in the shortcut. In front of the whole block, or behind it, is the same function, nearest doubling being blind to
    what is done to single pixels and halving linear; and the block's shortcut is then the identity, as bounds of whole
    blocks want it.
    """
    branch = nn.Sequential(
        *parts.norm(width, 2),
        parts.activation(),
        parts.convolution(width, width, 3, activated=True),
        *(parts.norm(width, 2) if parts.normalization == "batch" else []),
        parts.activation(),
        parts.convolution(width, width, 3, bias=False, activated=True),
    )
    return Residual(branch, parts)
