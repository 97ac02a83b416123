"""A noise level, or a step of denoising, as features that are added to a network's first ones."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.gan.models.parts import Parts

_FREQUENCIES = 3


class LevelEmbedding(nn.Module):
    r"""Embed a level from [0, 1], for a sum with the output of a network's first layer.

    For vectors one layer of the level itself: with the first layer's it is one layer of the input and the level.
    For images two layers on the sines and cosines of :math:`\pi 2^k l / 2, k = 0..2`; slow waves alone, so that what is
    learned at a level holds for its neighbours. On points these waves reached 55 % of high quality where the level
    itself reached 73 %.

    Args:
        width: Channels to add to.
        dimensions: 1 for vectors, 3 for images (channels, height, width).
        parts: Makes the layers.
    """

    frequencies: Tensor
    clean: Tensor

    def __init__(self, width: int, dimensions: int, parts: Parts):
        super().__init__()
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(_FREQUENCIES), persistent=False)
        self.register_buffer("clean", torch.zeros(1), persistent=False)
        self._waves = dimensions > 1
        ones = parts.ones()
        self.layers = (
            nn.Sequential(
                parts.linear(2 * _FREQUENCIES, width), parts.activation(), parts.linear(width, width, activated=True)
            )
            if self._waves
            else nn.Sequential(*ones, parts.linear(1 + len(ones), width))
        )
        self._shape = (1,) * (dimensions - 1)

    def forward(self, level: Float[Tensor, "n"] | None) -> Float[Tensor, "m c *one"]:
        """Embed.

        Args:
            level: Levels, shape (N,); None for level 0, whatever the batch.

        Returns:
            Features, shape (N, width) or (N, width, 1, 1); N = 1 for None.
        """
        features = (self.clean if level is None else level)[:, None]
        if self._waves:
            angles = features * self.frequencies
            features = torch.cat([angles.sin(), angles.cos()], 1) * math.sqrt(2)
        return self.layers(features).unflatten(1, (-1, *self._shape))  # type: ignore[no-any-return]
