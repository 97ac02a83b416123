"""How evenly samples change along a path between two latent points."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Sampler = Callable[[Tensor], Tensor]
"""Maps latent points (n, latent_dim), standard normal, to samples (n, ...); no randomness besides."""


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Steps of samples along paths through the latent space."""

    jump: float | None
    """Largest step over the mean step, median over paths: 1 for an even path, the number of steps for a path that
    moves once; None where nothing moves or something is not finite."""
    steps: Float[Tensor, "paths steps"]
    """Length of each step, root mean square over coordinates."""


def latent_paths(
    latent_dim: int, paths: int, steps: int, generator: torch.Generator | None = None
) -> Float[Tensor, "paths points latent_dim"]:
    r"""Paths between pairs of standard normal points, all of whose points are standard normal too.

    .. math::
        z(\theta) = \cos\theta\, z_0 + \sin\theta\, z_1, \qquad 0 \le \theta \le \pi/2

    A straight line would pass through points of smaller norm than the generator was trained on.

    Args:
        latent_dim: Dimensions of the latent.
        paths: How many.
        steps: Steps of each; one less than its points.
        generator: Source of randomness, on the CPU.

    Returns:
        The points.

    Example:
        >>> latent_paths(latent_dim=16, paths=3, steps=10).shape
        torch.Size([3, 11, 16])
    """
    ends = torch.randn((2, paths, 1, latent_dim), generator=generator)
    angle = torch.linspace(0, math.pi / 2, steps + 1).view(1, -1, 1)
    return angle.cos() * ends[0] + angle.sin() * ends[1]


@torch.no_grad()
def interpolation(
    sample: Sampler,
    latent_dim: int,
    *,
    paths: int = 16,
    steps: int = 64,
    batch: int = 250,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Interpolation:
    r"""Smoothness of a generator along latent interpolations.

    With :math:`s_t = \|G(z_{t+1}) - G(z_t)\|` the steps of a path, its jump is
    :math:`\max_t s_t / \mathrm{mean}_t s_t`. What is normal depends on the data: between separate modes a path must
    jump, and a generator that has collapsed moves evenly, so neither direction is better by itself. Abrupt changes in
    images that vary continuously hint at memorised examples. Invariant to the scale of the samples. Cost:
    paths * (steps + 1) samples.

    Source: interpolation as a check for memorised transitions, Radford et al. 2015, arXiv:1511.06434, section 6.1; the
    ratio is ours.

    Args:
        sample: The generator.
        latent_dim: Dimensions of its latent.
        paths: Pairs of latent points.
        steps: Steps between the points of a pair.
        batch: Samples in one call.
        device: Where the generator is; the CPU by default.
        generator: Source of the latent points, on the CPU.

    Returns:
        The jump and the steps.

    Raises:
        ValueError: If there is no path or step.

    Example:
        >>> found = interpolation(lambda z: (z[:, :1] > 0).float(), latent_dim=2, steps=8)  # jumps, if it moves at all
        >>> float(found.steps.max()), found.steps.shape
        (1.0, torch.Size([16, 8]))
    """
    if paths < 1 or steps < 1:
        raise ValueError(f"need at least one path and one step, got {paths} and {steps}")
    latents = latent_paths(latent_dim, paths, steps, generator).to(device or "cpu")
    made = torch.cat([sample(part) for part in latents.flatten(0, 1).split(batch)])
    points = made.double().flatten(1).view(paths, steps + 1, -1)
    lengths = points.diff(dim=1).square().mean(2).sqrt()
    moving = lengths.sum(1) > 0
    finite = bool(lengths.isfinite().all())
    jump = float((lengths.amax(1) / lengths.mean(1))[moving].median()) if finite and bool(moving.any()) else None
    return Interpolation(jump, lengths)
