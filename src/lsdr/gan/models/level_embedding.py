"""A noise level, or a step of denoising, as features that are added to a network's first ones."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.gan.models.parts import Parts

_FREQUENCIES = 3


class LevelEmbedding(nn.Module):
    r"""Embed a level from [0, 1]: two layers on the sines and cosines of :math:`\pi 2^k l / 2, k = 0..2`.

    Slow waves alone: what is learned at a level holds for its neighbours. Added to the output of a network's first
    layer it is what the same features beside the network's input would be.

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
        self.layers = nn.Sequential(
            parts.linear(2 * _FREQUENCIES, width), parts.activation(), parts.linear(width, width, activated=True)
        )
        self._shape = (1,) * (dimensions - 1)

    def forward(self, level: Float[Tensor, "n"] | None) -> Float[Tensor, "m c *one"]:
        """Embed.

        Args:
            level: Levels, shape (N,); None for level 0, whatever the batch.

        Returns:
            Features, shape (N, width) or (N, width, 1, 1); N = 1 for None.
        """
        angles = (self.clean if level is None else level)[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], 1) * math.sqrt(2)
        return self.layers(waves).unflatten(1, (-1, *self._shape))  # type: ignore[no-any-return]
