"""The discriminator: examples to logits."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.gan.models.level_embedding import LevelEmbedding
from lsdr.gan.models.parts import Parts


class Discriminator(nn.Module):
    """A stem, a body and a head with one output.

    Args:
        stem: From examples to features.
        body: From features to features.
        head: From features to a logit, shape (N, 1).
        level: What embeds the level of noise, if the discriminator is told it.
        denoising: Whether it judges an example beside the noisier one that it came from.
        parts: What made the layers.
    """

    def __init__(
        self,
        stem: nn.Module,
        body: nn.Module,
        head: nn.Module,
        level: LevelEmbedding | None,
        denoising: bool,
        parts: Parts,
    ):
        super().__init__()
        self.stem, self.body, self.head, self.level, self.denoising = stem, body, head, level, denoising
        self._parts = parts

    def forward(
        self,
        x: Float[Tensor, "n *shape"],
        noisy: Float[Tensor, "n *shape"] | None = None,
        level: Float[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "n"]:
        """Judge.

        Args:
            x: Examples, shape (N, channels, ...); packed ones have their channels beside each other.
            noisy: The noisier examples that they came from, of the same shape, for a discriminator of denoising.
            level: How noisy the examples are, in [0, 1], shape (N,); None for 0.

        Returns:
            Logits, shape (N,): positive for what seems real.

        Raises:
            ValueError: If a noisy example or a level is given to a discriminator built without, or a noisy example is
                missing.
        """
        if (noisy is not None) != self.denoising:
            raise ValueError(
                "this discriminator was built with denoising=True: give it the noisier example beside x"
                if self.denoising
                else "this discriminator judges x alone: build it with denoising=True to give it a noisier example"
            )
        if level is not None and self.level is None:
            raise ValueError("this discriminator is not told the level of noise: build it with level=True")
        features = self.stem(x if noisy is None else torch.cat([x, noisy], 1))
        if self.level is not None:
            features = self._parts.add(features, self.level(level))
        return self.head(self.body(features)).squeeze(1)  # type: ignore[no-any-return]
