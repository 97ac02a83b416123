"""Stacked digits: three random digits as the colours of one image, a thousand modes that a classifier can count."""

from collections.abc import Iterable
from typing import Literal, SupportsInt

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lsdr.data.images import ImageDataset
from lsdr.data.load import load_images
from lsdr.data.split import split

_DIGITS = 10
_PREFIX = "stacked:"


class StackedDataset(Dataset[dict[str, Tensor]]):
    """Fixed random triples of digits, in the batches that the training loop reads; made by `load_stacked`.

    Attributes:
        digits: The single digits, uint8 (n, h, w).
        digit_labels: Their classes, int64 (n,).
        classes: 1000: the class of a picture is 100 red + 10 green + blue.
        shape: (3, h, w).
    """

    classes = _DIGITS**3

    def __init__(
        self, digits: UInt8[Tensor, "n h w"], digit_labels: Int64[Tensor, " n"], count: int, seed: int, title: str
    ) -> None:
        self.digits, self.digit_labels, self.title = digits, digit_labels, title
        generator = torch.Generator().manual_seed(seed)
        self._triples = torch.randint(len(digits), (count, 3), generator=generator)
        self.shape: tuple[int, ...] = (3, *digits.shape[1:])

    def __len__(self) -> int:
        return len(self._triples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Iterable[SupportsInt]) -> dict[str, Tensor]:
        """A batch: ``"image"`` uint8 (B, 3, h, w), ``"label"`` int64 (B,) in 0 ... 999, ``"index"`` int64 (B,)."""
        index = torch.tensor([int(each) for each in indices], dtype=torch.int64)
        triples = self._triples[index]
        return {"image": self.digits[triples], "label": stacked_label(self.digit_labels[triples]), "index": index}

    @property
    def probabilities(self) -> Float[Tensor, " classes"]:
        """How often each of the 1000 classes comes, float64: digits are drawn as often as the source has them."""
        share = self.digit_labels.bincount(minlength=_DIGITS).double() / len(self.digit_labels)
        return torch.einsum("a,b,c->abc", share, share, share).flatten()

    def name(self, index: int) -> str:
        """What to call a picture when speaking to a person."""
        label = int(stacked_label(self.digit_labels[self._triples[index]]))
        return f"{self.title}#{index} ({label:03d})"


def load_stacked(
    source: str,
    count: int,
    *,
    part: Literal["train", "heldout"] = "train",
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
) -> StackedDataset:
    """Draw triples of digits from one part of a labelled source.

    The single digits are split first, by a fixed seed, so that no digit of a held-out picture is in a training picture;
    `seed` decides only which triples are drawn.

    Source: Metz et al. 2017 (arXiv:1611.02163), section 3.3.1; VEEGAN and PacGAN fix 128,000 pictures.

    Args:
        source: ``stacked-digits`` (scikit-learn's, 8x8) or ``stacked:`` followed by any source of `load_images` with
            ten classes, such as MNIST's ``...-idx3-ubyte.gz`` with its labels beside it.
        count: How many pictures.
        part: Which part of the digits they are made of.
        size: Side of the pictures; larger than the digits, and they are enlarged bilinearly; None keeps their own.
        holdout: Share of the digits that is held out.
        seed: Decides the triples; training and held-out pictures differ even with one seed.

    Returns:
        The data set.

    Raises:
        ValueError: If the source has not ten classes, or cannot be read, or a number makes no sense.

    Example:
        >>> pictures = load_stacked("stacked-digits", count=50)
        >>> batch = pictures.__getitems__([0, 1])
        >>> batch["image"].shape, pictures.classes
        (torch.Size([2, 3, 8, 8]), 1000)
    """
    if source != "stacked-digits" and not source.startswith(_PREFIX):
        raise ValueError(f"expected stacked-digits or stacked:SOURCE, got {source!r}")
    if part not in ("train", "heldout"):
        raise ValueError(f'part={part!r} must be "train" or "heldout"')
    if count < 1 or not 0 < holdout < 1:
        raise ValueError(f"need count of at least 1 and 0 < holdout < 1, got count={count} and holdout={holdout}")
    name = "digits" if source == "stacked-digits" else source.removeprefix(_PREFIX)
    dataset = _open(name, size)
    if dataset.classes != _DIGITS:
        raise ValueError(
            f"stacked digits need a source with ten classes, and {name} has {dataset.classes or 'no labels'}"
        )
    train, heldout = split(dataset, holdout, seed=0)
    batch = dataset.__getitems__((train if part == "train" else heldout).tolist())
    digits = batch["image"]
    if size is not None and size != digits.shape[-1]:
        enlarged = F.interpolate(digits.float(), (size, size), mode="bilinear")
        digits = enlarged.round().to(torch.uint8)
    return StackedDataset(digits[:, 0], batch["label"], count, seed, source)


def stacked_label(digits: Int64[Tensor, "*n 3"]) -> Int64[Tensor, "*n"]:
    """The class 0 ... 999 of three digits."""
    return (digits * torch.tensor([100, 10, 1], device=digits.device)).sum(-1)


def _open(source: str, size: int | None) -> ImageDataset:
    try:
        return load_images(source, size=size, channels=1)
    except ValueError:
        if size is None:
            raise
        # Perhaps only smaller than asked for, which load_images refuses; digits may be enlarged.
        return load_images(source, channels=1)
