"""The generator: latents to examples, or latents and noisy examples to clean ones."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts


class Generator(nn.Module):
    """A stem for the latent, stages, and a head.

    A noisy example enters in front of each stage, at the size that the stage works at, none of its pixels lost: those
    of a square become channels. So no encoder is needed for it.

    Args:
        stem: From latents to features.
        stages: From features to features.
        head: From features to examples.
        latent_dim: Dimensions of the latent.
        noisy: What takes the noisy example in, one for each stage; empty for a generator from latents alone.
        level: What embeds the level of noise, if there is a noisy example.
        parts: What made the layers.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        head: nn.Module,
        latent_dim: int,
        noisy: Sequence[nn.Module],
        level: LevelEmbedding | None,
        parts: Parts,
    ):
        super().__init__()
        self.stem, self.stages, self.head = stem, nn.ModuleList(stages), head
        self.noisy, self.level = nn.ModuleList(noisy), level
        self.latent_dim, self._parts = latent_dim, parts

    def forward(
        self,
        z: Float[Tensor, "n latent"],
        noisy: Float[Tensor, "n *shape"] | None = None,
        level: Float[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "n *shape"]:
        """Generate.

        Args:
            z: Latents, standard normal, shape (N, latent_dim).
            noisy: Noisy examples, shape (N, ...), for a generator that denoises.
            level: How noisy they are, in [0, 1], shape (N,); None for 0.

        Returns:
            Examples, shape (N, ...); of images the pixels are in (-1, 1).

        Raises:
            ValueError: If there is a noisy example for a generator that takes none, or none for one that does.
        """
        if (noisy is None) != (self.level is None):
            raise ValueError(
                "this generator works from latents alone: build it with denoising=True to give it a noisy example"
                if noisy is not None
                else "this generator was built with denoising=True: give it a noisy example"
            )
        features: Tensor = self.stem(z)
        if self.level is not None:
            features = self._parts.add(features, self.level(level))
        for place, stage in enumerate(self.stages):
            if noisy is not None:
                features = self._parts.add(features, self.noisy[place](noisy))
            features = stage(features)
        return self.head(features)  # type: ignore[no-any-return]


class NoisyInput(nn.Module):
    """Takes a noisy image in at a smaller size: the pixels of a square become channels, which a layer mixes."""

    def __init__(self, channels: int, width: int, factor: int, parts: Parts):
        super().__init__()
        self.factor = factor
        ones = parts.ones()
        self.layer = nn.Sequential(*ones, parts.convolution(channels * factor**2 + len(ones), width, 1))

    def forward(self, noisy: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width a b"]:
        """Take in."""
        return self.layer(F.pixel_unshuffle(noisy, self.factor))  # type: ignore[no-any-return]
