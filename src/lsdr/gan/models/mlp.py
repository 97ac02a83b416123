"""Networks for points: plain and residual."""

import math
from typing import TypeVar

from torch import nn

from lsdr.gan.models.discriminator import Discriminator
from lsdr.gan.models.generator import Generator
from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts
from lsdr.gan.models.residual import Residual, initialise_residual

_Network = TypeVar("_Network", Generator, Discriminator)


def mlp_body(width: int, layers: int, parts: Parts) -> nn.Sequential:
    """What follows the first layer of a plain network with so many hidden layers: activations, and layers between."""
    body: list[nn.Module] = []
    for place in range(layers):
        body += [] if place == 0 else [parts.linear(width, width, activated=True)]
        body += [*parts.norm(width, 1), parts.activation()]
    return nn.Sequential(*body)


def residual_mlp_body(width: int, blocks: int, parts: Parts) -> nn.Sequential:
    """Residual blocks of two layers, activations first, and an activation behind the last block."""
    body = [_block(width, parts) for _ in range(blocks)]
    return nn.Sequential(*body, *parts.norm(width, 1), parts.activation())


def points_generator(
    body: nn.Sequential, width: int, dimensions: int, latent: int, denoising: bool, parts: Parts
) -> Generator:
    """A generator of points around a body."""
    ones = parts.ones()
    noisy = [nn.Sequential(*ones, parts.linear(dimensions + len(ones), width))] if denoising else []
    level = LevelEmbedding(width, 1, parts) if denoising else None
    head = parts.last(nn.Linear(width, dimensions))
    stem = nn.Sequential(*ones, parts.linear(latent + len(ones), width))
    return _initialised(Generator(stem, [body], head, latent, noisy, level, parts), body, parts)


def points_discriminator(
    body: nn.Sequential, width: int, dimensions: int, level: bool, denoising: bool, parts: Parts
) -> Discriminator:
    """A discriminator of points around a body."""
    ones = parts.ones()
    inputs = dimensions * (2 if denoising else 1) + len(ones)
    embedding = LevelEmbedding(width, 1, parts) if level or denoising else None
    stem = nn.Sequential(*ones, parts.linear(inputs, width))
    head = parts.last(nn.Linear(width, 1))
    return _initialised(Discriminator(stem, body, head, embedding, denoising, parts), body, parts)


def _block(width: int, parts: Parts) -> Residual:
    second = parts.norm(width, 1) if parts.normalization == "batch" else []
    branch = nn.Sequential(
        *parts.norm(width, 1),
        parts.activation(),
        parts.linear(width, width, activated=True),
        *second,
        parts.activation(),
        parts.linear(width, width, bias=False, activated=True),
    )
    return Residual(branch, parts)


def _initialised(network: _Network, body: nn.Module, parts: Parts) -> _Network:
    """Residual networks have an initialisation of their own; in plain ones it is that of He et al. 2015."""
    if any(isinstance(each, Residual) for each in network.modules()):
        initialise_residual(network, parts)
    elif not parts.preserving:
        parts.initialise(network)
        for layer in [each for each in [*network.stem.modules(), *body.modules()] if isinstance(each, nn.Linear)]:
            nn.init.kaiming_normal_(layer.weight, parts.slope)
        if network.level is not None:
            _initialise_together(network.stem, network.level, parts.slope)
    return network


def _initialise_together(stem: nn.Module, level: nn.Module, slope: float) -> None:
    """The two first layers as the one layer that their sum is."""
    layers = [each for each in [*stem.modules(), *level.modules()] if isinstance(each, nn.Linear)]
    inputs = sum(layer.in_features for layer in layers)
    for layer in layers:
        nn.init.normal_(layer.weight, std=nn.init.calculate_gain("leaky_relu", slope) / math.sqrt(inputs))
