"""Images that are already pixels in one array."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lsdr.data.problem import BadImageError, Problems
from lsdr.data.reader import Strips

Layout = Literal["NHWC", "NCHW", "NHW"]
_CHANNELS = (1, 3, 4)
_CHUNK = 64 * 2**20


class ArrayReader:
    """Pixels from an array, in memory or mapped from a file.

    Values: uint8 as they are, bool as black and white, uint16 divided by 257; other numbers by the range of the whole
    array: [0, 1] and [-1, 1] are stretched to [0, 255], [0, 255] is kept.

    Args:
        array: The images, N first.
        title: What to call them.
        labels: Class numbers, shape (N,), -1 where there is none.
        class_names: The names of the classes.

    Raises:
        ValueError: If the shape is not one of images, or the range of the values is none of those above.
    """

    strips: Strips | None = None

    def __init__(
        self,
        array: NDArray[Any],
        title: str,
        labels: NDArray[np.int64] | None = None,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        self.title = title
        self.problems = Problems()
        self.class_names = class_names
        self._labels = labels
        self._array = array
        self._layout = layout_of(array.shape, title)
        self._scale, self._offset = _scaling(array, title)

    def __len__(self) -> int:
        return len(self._array)

    def __getstate__(self) -> dict[str, Any]:
        array = self._array
        if not isinstance(array, np.memmap):
            return self.__dict__
        # NumPy would pickle the content of the file; a worker process is to map it again.
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return self.__dict__ | {"_array": (array.filename, array.dtype, "r", array.offset, array.shape, order)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        array = state["_array"]
        self.__dict__.update(state | {"_array": np.memmap(*array) if isinstance(array, tuple) else array})

    def name(self, index: int) -> str:
        """The row, from 0."""
        return f"{self.title}#{index}"

    def label(self, index: int) -> int:
        """The number of the image's class."""
        assert self._labels is not None
        return int(self._labels[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        """The pixels as (H, W) or (H, W, channels)."""
        if self._labels is not None and self._labels[index] < 0:
            raise BadImageError("no_label", "the label is missing")
        pixels = np.asarray(self._array[index])
        if pixels.dtype != np.uint8:
            if not np.isfinite(pixels).all():
                raise BadImageError("non_finite", "the pixels hold NaN or infinity")
            pixels = (pixels.astype(np.float64) * self._scale + self._offset).round().astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0) if self._layout == "NCHW" else pixels)


def layout_of(shape: tuple[int, ...], title: str) -> Layout:
    """Tell where the channels are: the one axis of length 1, 3 or 4, second or last.

    Args:
        shape: The shape of an array of images.
        title: What to call it in an error.

    Raises:
        ValueError: If the array has not three or four axes, or if no axis or both could hold the channels.

    Example:
        >>> layout_of((100, 3, 32, 32), "x"), layout_of((100, 28, 28), "x")
        ('NCHW', 'NHW')
    """
    if len(shape) == 3:
        return "NHW"
    if len(shape) != 4:
        raise ValueError(f"{title} has shape {shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    second, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if second and last:
        raise ValueError(f"{title} has shape {shape}, in which both the second and the last axis could be channels")
    if not second and not last:
        raise ValueError(f"{title} has shape {shape}: neither the second nor the last axis is 1, 3 or 4 channels long")
    return "NCHW" if second else "NHWC"


def _scaling(array: NDArray[Any], title: str) -> tuple[float, float]:
    """Scale and offset that bring the array's values to [0, 255]."""
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        return (255.0, 0.0) if array.dtype == np.bool_ else (1.0, 0.0)
    if array.dtype == np.uint16:
        return 1 / 257, 0.0
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ValueError(f"{title} holds {array.dtype}: expected integers or real numbers")
    low, high = math.inf, -math.inf
    rows = max(1, _CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):  # in pieces, because the array may be a file larger than memory
        chunk = array[start : start + rows]
        finite = chunk[np.isfinite(chunk)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise ValueError(f"{title} holds no finite number")
    if low >= 0 and high <= 1 and np.issubdtype(array.dtype, np.floating):
        return 255.0, 0.0
    if low >= -1 and high <= 1 and np.issubdtype(array.dtype, np.floating):
        return 127.5, 127.5
    if low >= 0 and high <= 255:
        return 1.0, 0.0
    raise ValueError(
        f"{title} holds values from {low:g} to {high:g}: expected [0, 255], or real numbers in [0, 1] or [-1, 1]"
    )
