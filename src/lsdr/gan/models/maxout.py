"""PacGAN's published networks for points: a plain generator with batch norm against maxout layers."""

from torch import nn

from lsdr.gan.models.discriminator import Discriminator
from lsdr.gan.models.generator import Generator
from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts

_HIDDEN, _LAYERS = 400, 4
_MAXOUT, _PIECES, _MAXOUT_LAYERS = 200, 5, 3
_DEVIATION = 0.02


def maxout(inputs: int, outputs: int, pieces: int) -> nn.Sequential:
    r"""A maxout layer: the largest of a few affine functions.

    .. math:: y_o = \max_{k} \, (W_{ok} \cdot x + b_{ok})

    Its Lipschitz constant is at most that of its linear part.

    Source: Goodfellow et al. 2013 (arXiv:1302.4389), section 3.

    Args:
        inputs: Dimensions in.
        outputs: Dimensions out.
        pieces: Affine functions to an output.

    Example:
        >>> import torch
        >>> maxout(3, 4, 5)(torch.randn(7, 3)).shape
        torch.Size([7, 4])
    """
    # Of a matrix MaxPool1d takes the rows for channels, and pools along each.
    return nn.Sequential(nn.Linear(inputs, outputs * pieces), nn.MaxPool1d(pieces))


def maxout_generator(dimensions: int, latent: int, parts: Parts) -> Generator:
    """Four layers of 400 without bias, each with batch norm and ReLU, then a linear one with bias.

    Source: Lin et al. 2018 (arXiv:1712.04086), appendix A, and its code: weights N(0, 0.02^2), biases zero.
    """
    layers: list[nn.Module] = []
    for place in range(_LAYERS):
        layers += [] if place == 0 else [nn.Linear(_HIDDEN, _HIDDEN, bias=False)]
        layers += [*parts.norm(_HIDDEN, 1), nn.ReLU()]
    stem, head = nn.Linear(latent, _HIDDEN, bias=False), nn.Linear(_HIDDEN, dimensions)
    generator = Generator(stem, [nn.Sequential(*layers)], head, latent, (), None, parts)
    parts.initialise(generator, _DEVIATION)
    return generator


def maxout_discriminator(dimensions: int, level: bool, parts: Parts) -> Discriminator:
    """Three maxout layers of 200 with five pieces, then a linear one; source as `maxout_generator`.

    The published one has no normalisation; one that is asked for stands behind each maxout layer.
    """
    layers = [maxout(dimensions if place == 0 else _MAXOUT, _MAXOUT, _PIECES) for place in range(_MAXOUT_LAYERS)]
    body: list[nn.Module] = []
    for layer in layers[1:]:
        body += [*parts.norm(_MAXOUT, 1), layer]
    body += parts.norm(_MAXOUT, 1)
    embedding = LevelEmbedding(_MAXOUT, 1, parts) if level else None
    discriminator = Discriminator(layers[0], nn.Sequential(*body), nn.Linear(_MAXOUT, 1), embedding, False, parts)
    parts.initialise(discriminator, _DEVIATION)
    return discriminator
