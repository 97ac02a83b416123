"""Mixtures of Gaussians: data whose modes are known, so that those a generator misses can be counted."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsInt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equally weighted Gaussians of one standard deviation.

    Example:
        >>> ring = MIXTURES["ring"]
        >>> ring.modes, ring.dimensions, ring.sample(5, torch.Generator().manual_seed(0)).shape
        (8, 2, torch.Size([5, 2]))
    """

    name: str
    means: Float[Tensor, "modes d"]
    std: float
    """Standard deviation of every mode in every direction."""

    @property
    def modes(self) -> int:
        """How many modes there are."""
        return len(self.means)

    @property
    def dimensions(self) -> int:
        """Coordinates of a point."""
        return self.means.shape[1]

    @property
    def deviation(self) -> Float[Tensor, " d"]:
        """Standard deviation of the whole mixture in each coordinate, exact."""
        return (self.means.var(0, correction=0) + self.std**2).sqrt()

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Draw points: what a perfect generator would return.

        Args:
            count: How many.
            generator: Source of randomness, on the CPU.

        Returns:
            Points, float32, on the CPU.
        """
        mode = torch.randint(self.modes, (count,), generator=generator)
        noise = torch.randn((count, self.dimensions), generator=generator)
        return self.means[mode] + self.std * noise


def _ring(modes: int, radius: float, std: float) -> Mixture:
    angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    return Mixture("ring", (radius * torch.stack([angles.cos(), angles.sin()], 1)).float(), std)


def _grid(side: Iterable[float], std: float) -> Mixture:
    ticks = torch.tensor([*side])
    return Mixture("grid", torch.cartesian_prod(ticks, ticks), std)


MIXTURES: dict[str, Mixture] = {
    "ring": _ring(8, radius=1.0, std=0.01),
    "grid": _grid((-4.0, -2.0, 0.0, 2.0, 4.0), std=0.05),
}
"""The two mixtures of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and PacGAN (Lin et al. 2018, arXiv:1712.04086):
8 modes on a circle of radius 1 and 25 on a grid."""


class MixtureDataset(Dataset[dict[str, Tensor]]):
    """Fixed draws from a mixture, in the batches that the training loop reads.

    Args:
        mixture: Where the points come from.
        count: How many points.
        seed: Decides the points; other seeds give independent points of the same mixture.

    Raises:
        ValueError: If there is no point.

    Example:
        >>> points = MixtureDataset(MIXTURES["grid"], count=100, seed=0)
        >>> batch = points.__getitems__([0, 7])
        >>> batch["image"].shape, batch["index"].tolist(), points.shape
        (torch.Size([2, 2]), [0, 7], (2,))
    """

    def __init__(self, mixture: Mixture, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"a data set needs at least one point, got count={count}")
        self.mixture = mixture
        self.points = mixture.sample(count, torch.Generator().manual_seed(seed))
        self.shape: tuple[int, ...] = (mixture.dimensions,)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Iterable[SupportsInt]) -> dict[str, Tensor]:
        """A batch: ``"image"`` float32 (B, d), the points, and ``"index"`` int64 (B,)."""
        index = torch.tensor([int(each) for each in indices], dtype=torch.int64)
        return {"image": self.points[index], "index": index}

    def name(self, index: int) -> str:
        """What to call a point when speaking to a person."""
        place = ", ".join(f"{value:.3f}" for value in self.points[index].tolist())
        return f"{self.mixture.name}#{index} ({place})"
