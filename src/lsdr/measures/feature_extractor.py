"""A small classifier trained on the data, whose features are the yardstick where no Inception weights are at hand."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lsdr.measures.small_classifier import blank, fit, initialise
from lsdr.runs import atomic, read_json, write_json

_WIDTHS = (32, 64, 64)

LEAST_IMAGES = 10
"""Fewer cannot be split into images to learn from and images to be tested on."""


class FeatureExtractor(nn.Module):
    """Three convolutions, group-normalised, averaged over space: images in [-1, 1] of any size to 64 features."""

    num_features = _WIDTHS[-1]

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.channels = channels
        self.classes = classes
        sizes = (channels, *_WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inside, outside, 3, padding=1) for inside, outside in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in _WIDTHS)
        self.head = nn.Linear(self.num_features, classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of images."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.silu(norm(convolution(x)))
            # ceil_mode keeps at least one pixel, however small the image.
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return x.mean((2, 3))

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Class scores of images."""
        scores: Tensor = self.head(self(images))
        return scores


@dataclass(frozen=True)
class TrainedExtractor:
    """An extractor and how good a yardstick it is."""

    extractor: FeatureExtractor
    task: Literal["labels", "rotation"]
    """What it was trained to tell apart: the data's classes, or by how many quarter turns an image was rotated."""
    accuracy: float
    """Share of images kept out of its training that it classifies rightly."""
    chance: float
    """What guessing would reach."""

    def save(self, folder: Path) -> None:
        """Write extractor.safetensors and extractor.json."""
        with atomic(folder / "extractor.safetensors") as path:
            save_file(self.extractor.state_dict(), path)
        facts = {"task": self.task, "accuracy": self.accuracy, "chance": self.chance}
        shape = {"channels": self.extractor.channels, "classes": self.extractor.classes}
        write_json(folder / "extractor.json", facts | shape)

    @classmethod
    def load(cls, folder: Path) -> "TrainedExtractor":
        """Read what `save` wrote."""
        facts = read_json(folder / "extractor.json")
        extractor = blank(partial(FeatureExtractor, facts["channels"], facts["classes"]))
        extractor.load_state_dict(load_file(folder / "extractor.safetensors"))
        return cls(extractor.eval().requires_grad_(False), facts["task"], facts["accuracy"], facts["chance"])


def train_feature_extractor(
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "_"] | None = None,
    *,
    steps: int = 300,
    batch: int = 64,
    seed: int = 0,
) -> TrainedExtractor:
    """Train the small classifier on the data: on its classes, or, without labels, on recognising quarter turns.

    A fifth of the images is kept out to measure the accuracy. Its 64 features see what tells these images apart, not
    what Inception learned on ImageNet: distances in them compare the methods of one experiment, and no published FID.
    An accuracy near chance says that the yardstick is poor. Deterministic for a seed (on one device and thread count);
    touches no random generator but its own. Cost: `steps` batches of a network of 0.06 million parameters, some seconds
    for 16x16 images on one core.

    Source: predicting rotations as a task without labels is Gidaris et al., arXiv 1803.07728.

    Args:
        images: Images in [-1, 1]; for rotations, the largest centred square is used.
        labels: Their classes 0 ... K-1; with fewer than two classes, rotations are used.
        steps: Training steps.
        batch: Images per step.
        seed: Decides initial weights, held-out images and order.

    Returns:
        The extractor in evaluation mode and without gradients, with its held-out accuracy.

    Raises:
        ValueError: If there are fewer than 10 images, or not one label per image.

    Example:
        >>> images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> trained = train_feature_extractor(images, steps=2)
        >>> trained.extractor(images).shape, trained.task, trained.chance
        (torch.Size([40, 64]), 'rotation', 0.25)
    """
    if len(images) < LEAST_IMAGES:
        raise ValueError(f"training an extractor takes at least {LEAST_IMAGES} images, got {len(images)}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"need one label per image, got {len(labels)} labels for {len(images)} images")
    generator = torch.Generator().manual_seed(seed)
    classes = 4 if labels is None else int(labels.max()) + 1
    if classes < 2:
        labels, classes = None, 4
    images = images.detach().float()
    order = torch.randperm(len(images), generator=generator).to(images.device)
    kept_out, training = order[: len(order) // 5], order[len(order) // 5 :]
    extractor = blank(partial(FeatureExtractor, images.shape[1], classes)).to(images.device)
    initialise(extractor, generator)

    def draw() -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(training), (batch,), generator=generator).to(images.device)
        return _task(images, labels, training[pick], generator)

    fit(extractor.logits, extractor.parameters(), draw, steps)
    extractor.eval().requires_grad_(False)
    right = 0
    for rows in kept_out.split(256):
        examples, targets = _task(images, labels, rows, generator)
        right += int((extractor.logits(examples).argmax(1) == targets).sum())
    return TrainedExtractor(
        extractor, "rotation" if labels is None else "labels", right / len(kept_out), _chance(labels, kept_out)
    )


def _chance(labels: Tensor | None, rows: Tensor) -> float:
    """Accuracy of always answering the commonest class."""
    return 0.25 if labels is None else float(labels[rows].bincount().max() / len(rows))


def _task(images: Tensor, labels: Tensor | None, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and what to say about them."""
    if labels is not None:
        return images[rows], labels[rows].long()
    side = min(images.shape[-2:])
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    square = images[rows, :, top : top + side, left : left + side]
    turns = torch.randint(4, (len(rows),), generator=generator).to(images.device)
    turned = torch.stack([square.rot90(quarter, (2, 3)) for quarter in range(4)])
    return turned[turns, torch.arange(len(rows), device=images.device)], turns
