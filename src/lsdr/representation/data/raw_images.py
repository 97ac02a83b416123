"""Images as numbers of any kind: their scale is found out, and those that cannot be used are replaced."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.data.problem import BadImageError, Problems
from lsdr.representation.data.images import learn_channels, show_nothing
from lsdr.representation.data.parts import split_rows
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.tables import Labels

_LOOKED_AT = 512


@runtime_checkable
class RawImages(Protocol):
    """Images as numbers of any kind."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, index: int) -> NDArray[Any]:
        """One image, shape (C, H, W).

        Raises:
            BadImageError: If it cannot be used.
        """
        ...

    def name(self, index: int) -> str:
        """What to call it."""
        ...


class RawPart(Dataset[Any]):
    """Some raw images, read when asked for; one that cannot be used is replaced by the next of its part.

    Args:
        images: All of them.
        index: Which ones are of this part.
        labels: Class numbers of all images, or None.
        shape: (C, H, W) of every image that can be used.
        size: Scale the centre square to this side, or None.
        problems: What cannot be used is noted here.
        on_bad: What to do about it.
    """

    def __init__(
        self,
        images: RawImages,
        index: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
        shape: tuple[int, int, int],
        size: int | None,
        problems: Problems,
        on_bad: Literal["skip", "refuse"],
    ) -> None:
        self.images, self.index, self.labels, self.shape, self.size = images, index, labels, shape, size
        self.problems, self.on_bad = problems, on_bad
        self._bad = set[int]()

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.index)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One example as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch: "image" as it is stored, integers of more than 8 bits as int32, fractions as float32."""
        read = [self._good(position) for position in positions]
        index = np.array([number for number, _ in read], dtype=np.int64)
        pixels = np.stack([image for _, image in read]) if read else np.zeros((0, *self.shape), np.uint8)
        batch = {"image": torch.from_numpy(pixels), "index": torch.from_numpy(index)}
        if self.size is not None:
            batch["image"] = _resized(batch["image"], self.size)
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[index])
        return batch

    def _good(self, position: int) -> tuple[int, NDArray[Any]]:
        for step in range(len(self.index)):
            number = int(self.index[(position + step) % len(self.index)])
            if number in self._bad:
                continue
            try:
                return number, self._checked(number)
            except BadImageError as error:
                if self.on_bad == "refuse":
                    raise ValueError(
                        f"{self.images.name(number)} cannot be used: {error}; repair or remove it, or leave it out "
                        'with on_bad="skip"'
                    ) from error
                self._bad.add(number)
                self.problems.add(error.kind, self.images.name(number), error.message)
                if 2 * len(self._bad) > max(len(self.index), 1):
                    break
        raise ValueError(
            f"most images of this part cannot be used: "
            f"{'; '.join(f'{each.name}: {each.message}' for each in self.problems.listed)}"
        )

    def _checked(self, number: int) -> NDArray[Any]:
        image = self.images.read(number)
        if image.shape != self.shape:
            raise BadImageError("different_shape", f"shape {image.shape}, where others are {self.shape}")
        if image.dtype.kind == "f":
            if not np.isfinite(image).all():
                raise BadImageError("non_finite", "the pixels hold NaN or infinity")
            return image.astype(np.float32)
        return image.astype(np.uint8) if image.dtype in (np.uint8, np.bool_) else image.astype(np.int32)


def raw_images(
    images: RawImages,
    title: str,
    *,
    labels: Labels | None = None,
    size: int | None = None,
    limit: int | None = None,
    holdout: float | int = 0.1,
    on_bad: Literal["skip", "refuse"] = "skip",
    seed: int = 0,
) -> RepresentationData:
    """Raw images as data to learn from: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If there are none, or they are not of one shape.
    """
    if len(images) == 0:
        raise ValueError(f"{title} holds no images")
    count = len(images) if limit is None else min(limit, len(images))
    index = np.arange(count, dtype=np.int64) * len(images) // count
    problems = Problems()
    shape, smallest, largest = _look(images, index, title, problems)
    side = min(shape[1:])
    if size is not None and not 1 <= size <= side:
        raise ValueError(f"size={size} must be between 1 and {side}, the shorter side: images are never enlarged")
    numbers = None if labels is None else labels.numbers
    parts = [
        RawPart(images, index[rows], numbers, shape, size, problems, on_bad)
        for rows in split_rows(count, holdout, seed)
    ]
    final = shape if size is None else (shape[0], size, size)
    return RepresentationData(
        modality="image",
        train=parts[0],
        heldout=parts[1],
        fields=learn_channels(parts[0], final, smallest, largest),
        name=images.name,
        show=show_nothing,
        class_names=None if labels is None else labels.names,
        problems=problems.summary,
    )


def _look(
    images: RawImages, index: NDArray[np.int64], title: str, problems: Problems
) -> tuple[tuple[int, int, int], float, float]:
    """The shape of the images, and the raw values that become 0 and 1, from up to 512 of them spread evenly.

    Integers: 0 and the largest value of as many bits as they use (8, 10, 12, 14 or 16). Fractions in [0, 1] and [-1, 1]
    keep their range, others take 0 and the largest found.
    """
    shapes: dict[tuple[int, ...], str] = {}
    low, high, fractions, truth = np.inf, -np.inf, False, False
    for number in index[np.arange(min(len(index), _LOOKED_AT)) * len(index) // min(len(index), _LOOKED_AT)]:
        try:
            image = images.read(int(number))
        except BadImageError as error:
            problems.add(error.kind, images.name(int(number)), error.message)
            continue
        shapes.setdefault(image.shape, images.name(int(number)))
        finite = image[np.isfinite(image)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        fractions = fractions or image.dtype.kind == "f"
        truth = image.dtype == np.bool_
    problems.counts.clear()  # they are met again, and counted, when they are used
    problems.listed.clear()
    if not shapes or low > high:
        raise ValueError(f"{title} holds no image that can be read")
    if len(shapes) > 1:
        listed = ", ".join(f"{name} is {shape}" for shape, name in list(shapes.items())[:5])
        raise ValueError(f"the images of {title} differ in shape ({listed}); make them equal")
    shape = next(iter(shapes))
    if fractions:
        if low < -1 or (low < 0 and high > 1):
            raise ValueError(
                f"{title} holds values from {low:g} to {high:g}: expected none below 0, or real numbers in [-1, 1]; "
                "shift and scale them first"
            )
        return shape, -1.0 if low < 0 else 0.0, max(1.0, high)  # type: ignore[return-value]
    if low < 0:
        raise ValueError(f"{title} holds whole numbers from {low:g}: expected none below 0; shift them first")
    if truth:
        return shape, 0.0, 1.0  # type: ignore[return-value]
    largest = next((2.0**each - 1 for each in (8, 10, 12, 14, 16) if high < 2**each), high)
    return shape, 0.0, largest  # type: ignore[return-value]


def _resized(image: Tensor, size: int) -> Tensor:
    """The centre square scaled to `size`, in the raw scale."""
    height, width = image.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, :, top : top + side, left : left + side].to(torch.float32)
    return torch.nn.functional.interpolate(square, size=(size, size), mode="bilinear", antialias=True)
