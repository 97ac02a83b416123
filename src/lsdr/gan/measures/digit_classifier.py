"""A small classifier of single digits, which tells the thousand classes of stacked digits apart."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lsdr.data.subset import to_pixels
from lsdr.gan.stacked import StackedDataset, stacked_label
from lsdr.measures.small_classifier import blank, fit, initialise, shared_folder
from lsdr.runs import atomic, read_json, write_json

_SIDE = 28  # larger digits are scaled down: they show no more
_WIDTHS = (16, 32)
_BATCH = 64
_CHUNK = 1024  # pictures classified at once


class DigitClassifier(nn.Module):
    """Two convolutions and a linear layer: digits in [-1, 1], (n, 1, h, w) with h = w of at least 4, to 10 scores."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = min(side, _SIDE)
        first, second = _WIDTHS
        self.first = nn.Conv2d(1, first, 3, padding=1)
        self.second = nn.Conv2d(first, second, 3, padding=1)
        self.head = nn.Linear(second * (self.side // 4) ** 2, 10)

    def forward(self, digits: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 10"]:
        """Scores of each digit."""
        x = digits if digits.shape[-1] == self.side else F.interpolate(digits, (self.side, self.side), mode="area")
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        scores: Tensor = self.head(x.flatten(1))
        return scores


@dataclass(frozen=True, eq=False)
class TrainedDigitClassifier:
    """A classifier of digits and how good a yardstick it is."""

    classifier: DigitClassifier
    accuracy: float
    """Share of digits kept out of its training, and of the GAN's, that it reads rightly; the thousand classes are read
    rightly about as often as its third power."""

    @torch.no_grad()
    def classify(self, images: Float[Tensor, "n 3 h w"]) -> Int64[Tensor, " n"]:
        """The classes 0 ... 999 of pictures, 100 red + 10 green + blue; -1 for one that is not finite.

        Args:
            images: Pictures scaled to [-1, 1], as the generator's tanh returns them. The published code classified
                tanh outputs with a classifier of [0, 1] images, unrescaled; a count made so is another measure.
        """
        labels = []
        for part in images.split(_CHUNK):
            finite = part.isfinite().flatten(1).all(1)
            digits = self.classifier(part.nan_to_num(0.0).clamp(-1, 1).float().flatten(0, 1)[:, None]).argmax(1)
            labels.append(stacked_label(digits.view(-1, 3)).where(finite, -1))
        return torch.cat(labels)

    def save(self, folder: Path) -> None:
        """Write digit_classifier.safetensors and digit_classifier.json."""
        with atomic(folder / "digit_classifier.safetensors") as path:
            save_file(self.classifier.state_dict(), path)
        write_json(folder / "digit_classifier.json", {"side": self.classifier.side, "accuracy": self.accuracy})

    @classmethod
    def load(cls, folder: Path) -> "TrainedDigitClassifier":
        """Read what `save` wrote."""
        facts = read_json(folder / "digit_classifier.json")
        classifier = blank(partial(DigitClassifier, facts["side"]))
        classifier.load_state_dict(load_file(folder / "digit_classifier.safetensors"))
        return cls(classifier.eval().requires_grad_(False), facts["accuracy"])


def train_digit_classifier(
    train: StackedDataset, heldout: StackedDataset, *, steps: int = 1000, seed: int = 0
) -> TrainedDigitClassifier:
    """Train the classifier on the single digits of the training pictures and test it on those of the held-out ones.

    Deterministic for a seed (on one device and thread count); touches no random generator but its own. Cost: some
    seconds of one core for 8x8 digits, about ten for MNIST's.

    Args:
        train: The pictures whose digits it learns.
        heldout: The pictures whose digits it is tested on.
        steps: Training steps of 64 digits.
        seed: Decides initial weights and order.

    Returns:
        The classifier in evaluation mode and without gradients, with its held-out accuracy.

    Raises:
        ValueError: If the digits are not square, or smaller than 4x4.
    """
    height, width = train.digits.shape[1:]
    if height != width or height < 4:
        raise ValueError(f"expected square digits of at least 4x4 pixels, got {height}x{width}")
    generator = torch.Generator().manual_seed(seed)
    classifier = blank(partial(DigitClassifier, width))
    initialise(classifier, generator)
    digits, labels = to_pixels(train.digits[:, None]), train.digit_labels

    def draw() -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(digits), (_BATCH,), generator=generator)
        return digits[pick], labels[pick]

    fit(classifier, classifier.parameters(), draw, steps)
    classifier.eval().requires_grad_(False)
    read = torch.cat([classifier(part).argmax(1) for part in to_pixels(heldout.digits[:, None]).split(_CHUNK)])
    return TrainedDigitClassifier(classifier, float((read == heldout.digit_labels).double().mean()))


def shared_digit_classifier(
    directory: Path, train: StackedDataset, heldout: StackedDataset, device: torch.device
) -> TrainedDigitClassifier:
    """The classifier of the comparison that this run belongs to, or of the run alone: the same for all its runs.

    Args:
        directory: The run's folder: the comparison's is two above it.
        train: What to train it on, if it is not there yet.
        heldout: What to test it on, then.
        device: Where it is to be.
    """
    folder = shared_folder(directory)
    if not (folder / "digit_classifier.json").exists():
        train_digit_classifier(train, heldout).save(folder)
    loaded = TrainedDigitClassifier.load(folder)
    loaded.classifier.to(device)
    return loaded
