"""Classifier-free guidance: away from what a network would make without its prompt."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsdr.diffusion.denoiser import Conditioning, Denoiser
from lsdr.probes.conditioning import check_conditioning, each_tensor, joined, tensors_of


@dataclass(frozen=True, eq=False)
class GuidedDenoiser:
    r"""A denoiser pressed towards its conditioning, as one denoiser; samplers take it like any other.

    .. math:: D_g(x, \sigma, c) = D(x, \sigma, \varnothing) + g\,\bigl(D(x, \sigma, c) - D(x, \sigma, \varnothing)\bigr)

    with the empty prompt (or a negative one) for :math:`\varnothing`. g = 1 is the denoiser itself, g = 0 the
    unconditional one; above 1 samples follow the prompt more and vary less. Since D is affine in what the network
    predicts, for one x and sigma, this is the same as mixing predictions of noise, velocity or flow, as diffusers' own
    pipelines do.

    Cost: the network sees twice the batch, in one call; the batch itself where g is 0 or 1.

    Source: Ho & Salimans 2022, "Classifier-free diffusion guidance", eq. 6, with g = 1 + w.

    Args:
        denoiser: The denoiser.
        scale: g, finite and not negative.
        unconditional: What the denoiser is conditioned on for the empty prompt, with the names and shapes of the
            conditioning: one entry for all examples, or one for each.

    Raises:
        ValueError: If the scale is out of range, or nothing is there to be unconditional with.

    Example:
        >>> from lsdr.diffusion.edm import EDMDenoiser
        >>> network = lambda x, timestep, text: text.view(-1, 1, 1, 1).expand_as(x)
        >>> guided = GuidedDenoiser(EDMDenoiser(network, sigma_data=1.0), 3.0, {"text": torch.zeros(1)})
        >>> text = {"text": torch.ones(1)}
        >>> (guided(torch.ones(1, 1, 1, 1), torch.tensor(1.0), text) - 0.5) / 0.5**0.5
        tensor([[[[3.]]]])
    """

    denoiser: Denoiser
    scale: float | int
    unconditional: Int[Tensor, "..."] | Mapping[str, Any]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ValueError(f"scale must be finite and not negative, got {self.scale}; 1 is no guidance")
        if not tensors_of(self.unconditional):
            raise ValueError("unconditional holds no tensor; pass the embeddings of the empty prompt")

    @property
    def model(self) -> Any:
        """The network."""
        return self.denoiser.model

    @property
    def sigma_min(self) -> float:
        """The smallest noise level the network is meant for."""
        return self.denoiser.sigma_min

    @property
    def sigma_max(self) -> float:
        """The largest noise level the network is meant for."""
        return self.denoiser.sigma_max

    def __call__(
        self, x: Float[Tensor, "b *dims"], sigma: Float[Tensor, "..."], conditioning: Conditioning = None
    ) -> Float[Tensor, "b *dims"]:
        """Estimate the clean images in x = clean + sigma * noise.

        Args:
            x: Noisy images.
            sigma: Noise level, 0-d or one per example.
            conditioning: What to follow, one entry per example.

        Returns:
            The estimate, shaped like x, float32 or better.

        Raises:
            ValueError: If there is no conditioning, or it does not go with the unconditional one.
        """
        if conditioning is None:
            raise ValueError("guidance follows a conditioning and was given None; pass what the prompt was encoded to")
        if self.scale == 1:
            return self.denoiser(x, sigma, conditioning)
        empty = each_tensor(lambda name, each: _for_all(name, each, x), self.unconditional, "unconditional")
        if self.scale == 0:
            return self.denoiser(x, sigma, empty)
        check_conditioning(conditioning, len(x))
        twice = sigma if sigma.ndim == 0 else torch.cat([sigma, sigma])
        with_, without = self.denoiser(torch.cat([x, x]), twice, joined(conditioning, empty)).chunk(2)
        return without + self.scale * (with_ - without)

    def draw_sigma(self, uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Noise levels of the denoiser's training distribution."""
        return self.denoiser.draw_sigma(uniform)

    def uniform_weight(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight that makes the loss a plain squared error of what the network predicts."""
        return self.denoiser.uniform_weight(sigma)


def _for_all(name: str, each: Tensor, x: Tensor) -> Tensor:
    if each.ndim < 1 or len(each) not in (1, len(x)):
        raise ValueError(
            f"{name} has shape {tuple(each.shape)} for {len(x)} examples; pass one entry for all, or one for each"
        )
    return each.to(x.device).expand(len(x), *each.shape[1:])
