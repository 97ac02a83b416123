"""Images that come with scikit-learn: nothing to download."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from lsdr.data.arrays import ArrayReader
from lsdr.data.problem import Problems
from lsdr.data.reader import Strips

_CROP = 16


def read_digits() -> ArrayReader:
    """1797 handwritten digits, 8x8 grey, ten classes.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
    (1998), as distributed with scikit-learn; its 17 grey levels 0..16 are stretched to 0..255.

    Example:
        >>> len(read_digits())
        1797
    """
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return ArrayReader(pixels, "digits", digits.target.astype(np.int64), tuple(str(digit) for digit in range(10)))


class PatchesReader:
    """Square RGB crops of scikit-learn's two photographs (a temple and a flower), on a regular grid.

    The photographs are first halved, so that a crop of 16x16 shows more than a flat surface. Neighbouring crops
    overlap by three quarters; `strips` tells `split` which ones share no pixel.

    Args:
        size: The side of a crop; 16 if None.

    Raises:
        ValueError: If a crop of this size does not fit a photograph.

    Example:
        >>> len(PatchesReader()), len(PatchesReader(size=32))
        (7700, 1702)
    """

    title = "patches"
    class_names: tuple[str, ...] | None = None

    def __init__(self, size: int | None = None) -> None:
        self.problems = Problems()
        self._size = size = _CROP if size is None else size
        sample = load_sample_images()
        self._photographs: list[NDArray[np.uint8]] = [
            np.asarray(Image.fromarray(image).reduce(2)) for image in sample.images
        ]
        self._names = [str(name).rsplit("/", 1)[-1].rsplit("\\", 1)[-1] for name in sample.filenames]
        shortest = min(min(photograph.shape[:2]) for photograph in self._photographs)
        if size > shortest:
            raise ValueError(f"patches of {size}x{size} do not fit the photographs; choose size={shortest} or less")
        stride = max(1, size // 4)
        self._corners = np.array(
            [
                (number, top, left)
                for number, photograph in enumerate(self._photographs)
                for top in range(0, photograph.shape[0] - size + 1, stride)
                for left in range(0, photograph.shape[1] - size + 1, stride)
            ],
            dtype=np.int64,
        )
        self.strips: Strips | None = Strips(self._corners[:, 2], size)

    def __len__(self) -> int:
        return len(self._corners)

    def name(self, index: int) -> str:
        """The photograph and the crop's upper left corner in it, halved."""
        number, top, left = self._corners[index]
        return f"{self._names[number]}[{top}:{top + self._size},{left}:{left + self._size}]"

    def label(self, index: int) -> int:
        """There are no classes."""
        raise NotImplementedError("patches have no classes")

    def read(self, index: int) -> NDArray[np.uint8]:
        """The crop, shape (size, size, 3)."""
        number, top, left = self._corners[index]
        return np.ascontiguousarray(self._photographs[number][top : top + self._size, left : left + self._size])
