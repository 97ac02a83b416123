"""The two players, and what stands between them and the data."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lsdr.data.subset import to_pixels
from lsdr.gan.adaptive_noise import AdaptiveNoise
from lsdr.gan.denoising_diffusion import DenoisingSchedule
from lsdr.gan.packing import pack
from lsdr.probes.evaluating import evaluating
from lsdr.regularizers.activation_standardization import ActivationStandardization


class Gan(nn.Module):
    """A generator and a discriminator that play in coordinates of their own.

    Points are played with their mean at zero and a variance of one, whatever the data's scale: `coordinates` leads
    there and `generate` back. Images are played as they are, in [-1, 1].

    Everything random about a sample is one standard normal vector of `latent_dim` numbers. A generator that takes off
    noise step by step reads from it the latent of each step, the noise it begins with and that of each step back, so
    that paths between samples, and all else that is measured of a map from latents to data, mean the same for it.

    Args:
        generator: Maps (b, generator.latent_dim) to examples; with a schedule also given noisy examples and their
            level.
        discriminator: Maps packs of examples to (b / packing,) outputs.
        shape: Of an example.
        noise: The controller of adaptive noise, if there is any.
        noisy_discriminator: Whether the discriminator sees the controller's noise and is told its level.
        schedule: The diffusion whose steps the generator undoes, if it does.
        packing: Examples that are judged together.
        center: Mean of the data.
        spread: Standard deviation of the data, one number for all coordinates.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: AdaptiveNoise | None = None,
        noisy_discriminator: bool = False,
        schedule: DenoisingSchedule | None = None,
        packing: int = 1,
        center: Tensor | None = None,
        spread: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.noise = generator, discriminator, noise
        self.shape, self.packing, self.schedule = shape, packing, schedule
        self.noisy_discriminator = noisy_discriminator
        mixing = (_BatchNorm, ActivationStandardization)
        self.mixes_examples = any(isinstance(module, mixing) for module in discriminator.modules())
        """Whether the discriminator's output on an example depends on the others in the batch."""
        self.register_buffer("center", torch.zeros(shape[0]) if center is None else center)
        self.register_buffer("spread", torch.ones(()) if spread is None else spread)

    @property
    def step_dim(self) -> int:
        """Dimensions of the latent that the generator is given in one call."""
        return int(self.generator.latent_dim)  # type: ignore[arg-type]

    @property
    def latent_dim(self) -> int:
        """Numbers that a sample is made from."""
        if self.schedule is None:
            return self.step_dim
        return self.schedule.steps * (self.step_dim + math.prod(self.shape))

    def coordinates(self, examples: Tensor) -> Float[Tensor, "b *shape"]:
        """Examples as the data set gives them, bytes or numbers, in the players' coordinates."""
        pixels = to_pixels(examples)
        return (pixels - self._of_data(self.center)) / self.spread

    def generate(self, latent: Float[Tensor, "b latent"]) -> Float[Tensor, "b *shape"]:
        """Make samples, in the data's own units, from standard normal numbers; no randomness besides."""
        if self.schedule is None:
            played = self.generator(latent)
        else:
            steps, shape = self.schedule.steps, self.shape
            of_steps, noise = latent.split([steps * self.step_dim, steps * math.prod(shape)], 1)
            played = self.schedule.sample(
                self.generator, of_steps.unflatten(1, (steps, -1)), noise.unflatten(1, (steps, *shape))
            )
        made: Tensor = played * self.spread + self._of_data(self.center)
        return made

    @torch.no_grad()
    def sample(
        self, count: int, generator: torch.Generator | None = None, batch: int = 250
    ) -> Float[Tensor, "count *shape"]:
        """Draw samples, in evaluation mode and in the data's own units.

        Args:
            count: How many.
            generator: Source of randomness, on the CPU.
            batch: Samples in one call of the network.
        """
        latents = torch.randn((count, self.latent_dim), generator=generator).to(self.center.device)
        with evaluating(self):
            return torch.cat([self.generate(part) for part in latents.split(batch)])

    def judge(
        self, played: Float[Tensor, "b *shape"], level: Tensor | None = None, noisy: Tensor | None = None
    ) -> Float[Tensor, " packs"]:
        """The discriminator's output on examples in the players' coordinates, `packing` after one another together.

        Args:
            played: Examples; a number that `packing` divides.
            level: How noisy they are, one number in [0, 1] a pack, for a discriminator that is told.
            noisy: What the examples are a step back from, for a generator that takes off noise.
        """
        told: dict[str, Any] = {"level": level, "noisy": noisy}
        packs = pack(played, self.packing) if self.packing > 1 else played
        output: Tensor = self.discriminator(packs, **{name: value for name, value in told.items() if value is not None})
        return output.float()

    def logits(self, examples: Float[Tensor, "b *shape"]) -> Float[Tensor, " packs"]:
        """The discriminator's output on examples in the data's units, without noise; differentiable.

        Packs are of examples that follow each other; those at the end that fill none are left out. Of a denoising
        generator's discriminator this is the judgement of the last step, where the examples are clean and what they
        are a step back from has a little noise, the same every time.
        """
        whole = len(examples) - len(examples) % self.packing
        played, level, noisy = self.coordinates(examples[:whole]), None, None
        if self.noisy_discriminator:
            level = played.new_zeros(whole // self.packing)
        if self.schedule is not None:
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(played.shape, generator=generator).to(played)
            first = torch.ones(whole, dtype=torch.int64, device=played.device)
            _, noisy = self.schedule.q_sample_pair(played, first, torch.zeros_like(noise), noise)
            level = self.schedule.level(first)
        return self.judge(played, level, noisy)

    def against(self, discriminator: nn.Module) -> "Gan":
        """The same with another discriminator; everything else is shared."""
        return Gan(
            self.generator,
            discriminator,
            self.shape,
            noise=self.noise,
            noisy_discriminator=self.noisy_discriminator,
            schedule=self.schedule,
            packing=self.packing,
            center=self.center,
            spread=self.spread,
        )

    def _of_data(self, center: Tensor) -> Tensor:
        return center.view(-1, *[1] * (len(self.shape) - 1))
