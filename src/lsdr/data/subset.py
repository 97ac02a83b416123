"""Parts of a set of images: to train on in batches, and in memory to measure with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.data.images import ImageDataset


class Subset(Dataset[Any]):
    """Some examples of a dataset, read in batches.

    Args:
        dataset: All examples.
        indices: Which ones, and in what order.
    """

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One example as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch of examples."""
        return self.dataset.__getitems__([self.indices[position] for position in positions])


@dataclass(frozen=True)
class Images:
    """Images in memory for measuring: pixels in [-1, 1], shape (n, C, H, W), and their labels or None."""

    pixels: Tensor
    labels: Tensor | None


def take(subset: Subset, count: int, device: torch.device) -> Images:
    """Some images of a part, the same ones every time, in memory, on the device.

    They are drawn, not the first ones: a source may be sorted by class, or be crops of one picture after another.
    """
    drawn = torch.randperm(len(subset), generator=torch.Generator().manual_seed(0))[:count]
    batch = subset.__getitems__(drawn.sort().values.tolist())
    label = batch.get("label")
    return Images(to_pixels(batch["image"]).to(device), None if label is None else label.to(device))


def to_pixels(images: Tensor) -> Tensor:
    """Bytes to [-1, 1]; numbers that are floating point already pass through."""
    return images if images.is_floating_point() else images.float() / 127.5 - 1
