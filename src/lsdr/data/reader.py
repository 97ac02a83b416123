"""What a source of images must offer: its length, names, labels and raw images."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lsdr.data.problem import Problems


@dataclass(frozen=True)
class Strips:
    """Where images lie when they are crops of larger pictures.

    Two images whose `columns` differ by `width` or more share no pixel.
    """

    columns: NDArray[np.int64]
    width: int


@runtime_checkable
class Reader(Protocol):
    """A source of images: cheap to make, safe to pickle, safe to read from several threads."""

    title: str
    class_names: tuple[str, ...] | None
    problems: Problems
    strips: Strips | None

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def name(self, index: int) -> str:
        """What to call an image when speaking to a person."""
        ...

    def label(self, index: int) -> int:
        """The class of an image, from 0; called only when there are `class_names`."""
        ...

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded file, or the pixels as (H, W) or (H, W, 1 | 3 | 4).

        Raises:
            BadImageError: If there is nothing to decode.
        """
        ...
