"""Images of any number of channels and any depth: arrays, files of arrays, and files of 16-bit grey."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lsdr.data.labels import number_labels
from lsdr.data.problem import BadImageError
from lsdr.representation.data.files import ARRAYS, folder_classes
from lsdr.representation.data.raw_images import RawImages
from lsdr.representation.data.tables import Labels

_IMAGE_KEYS = ("images", "x", "x_train", "train_images", "arr_0")
_LABEL_KEYS = ("labels", "label", "y", "y_train", "train_labels")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class ArrayImages:
    """Images of one array.

    Args:
        array: Shape (N, H, W), (N, H, W, C) or (N, C, H, W).
        title: What to call it.
        channels: How many channels there are, where the shape leaves it open.

    Raises:
        ValueError: If the shape is not one of images.
    """

    def __init__(self, array: NDArray[Any], title: str, channels: int | None = None) -> None:
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or np.iscomplexobj(array):
            raise ValueError(f"{title} holds {array.dtype}: expected integers or real numbers")
        self.array, self.title = array, title
        self.last = channel_axis(array.shape, title, channels) == 3

    def __len__(self) -> int:
        return len(self.array)

    def __getstate__(self) -> dict[str, Any]:
        array = self.array
        if not isinstance(array, np.memmap):
            return self.__dict__
        # NumPy would pickle the content of the file; a worker process is to map it again.
        return self.__dict__ | {"array": (array.filename, array.dtype, "r", array.offset, array.shape)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        array = state["array"]
        self.__dict__.update(state | {"array": np.memmap(*array) if isinstance(array, tuple) else array})

    def name(self, index: int) -> str:
        """The row, from 0."""
        return f"{self.title}#{index}"

    def read(self, index: int) -> NDArray[Any]:
        """One image, shape (C, H, W)."""
        image = np.asarray(self.array[index])
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1) if self.last else image


class FileImages:
    """Images in files of their own: .npy arrays of shape (H, W), (H, W, C) or (C, H, W), or pictures of 16-bit grey.

    Args:
        paths: The files.
        root: The folder that names are told from.
        channels: How many channels there are, where the shape leaves it open.
    """

    def __init__(self, paths: Sequence[Path], root: Path, channels: int | None = None) -> None:
        self.paths, self.root, self.channels = list(paths), root, channels

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path within the folder."""
        path = self.paths[index]
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else path.name

    def read(self, index: int) -> NDArray[Any]:
        """One image, shape (C, H, W)."""
        path = self.paths[index]
        try:
            if path.suffix.lower() == ".npy":
                with path.open("rb") as file:
                    known = file.read(6) == b"\x93NUMPY"
                if not known:
                    raise BadImageError("damaged", "no array of numpy.save")
                image = np.load(path, allow_pickle=False)
                if image.ndim not in (2, 3):
                    raise BadImageError("different_shape", f"shape {image.shape}, where an image has two or three axes")
                if image.ndim == 2:
                    return np.asarray(image[None])
                last = channel_axis((1, *image.shape), path.name, self.channels) == 3
                return np.asarray(image.transpose(2, 0, 1) if last else image)
            with Image.open(path) as picture:
                if picture.mode not in SIXTEEN_BIT:
                    raise BadImageError("different_depth", f"mode {picture.mode}, where others are 16-bit grey")
                return np.asarray(picture).astype(np.int32)[None]
        except BadImageError:
            raise
        except Exception as error:  # decoders meet damaged bytes with every kind of exception
            raise BadImageError("damaged", f"{error or type(error).__name__}") from error


def read_arrays(paths: Sequence[Path], root: Path, channels: int | None) -> tuple[RawImages, Labels | None]:
    """Images of .npy and .npz files: one file of many images, or many files of one image each.

    Raises:
        ValueError: If a file cannot be read or holds no images.
    """
    arrays = [path for path in paths if path.suffix.lower() in ARRAYS]
    if len(arrays) > 1:
        if any(path.suffix.lower() == ".npz" for path in arrays):
            raise ValueError(f"{root} holds several .npz files; give one of them, or .npy files of one image each")
        found = folder_classes(arrays, root)
        return FileImages(arrays, root, channels), None if found is None else Labels(*found)
    path = arrays[0]
    try:
        if path.suffix.lower() == ".npy":
            return ArrayImages(np.load(path, mmap_mode="r", allow_pickle=False), path.name, channels), None
        with np.load(path, allow_pickle=False) as archive:
            key = _image_key({name: archive[name].shape for name in archive.files}, path)
            array = archive[key]
            label = next((name for name in _LABEL_KEYS if name in archive.files), None)
            values = None if label is None else archive[label].squeeze()
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error
    if values is None:
        return ArrayImages(array, path.name, channels), None
    return ArrayImages(array, path.name, channels), array_labels(values, len(array), path.name)


def array_labels(values: NDArray[Any], count: int, title: str) -> Labels | None:
    """Labels of an array; None where they tell no classes apart.

    Raises:
        ValueError: If they are not one integer or text for each image.
    """
    if values.shape != (count,) or values.dtype.kind not in "iubUS":
        raise ValueError(
            f"the labels of {title} are {values.dtype} of shape {values.shape}; expected one integer or text for each "
            f"of the {count} examples"
        )
    numbers, names = number_labels(values)
    return None if numbers is None or names is None else Labels(numbers, names)


def channel_axis(shape: tuple[int, ...], title: str, channels: int | None = None) -> int:
    """Which axis of an array of images holds the channels, 1 or 3; 0 for none.

    It is the one as long as `channels`, else the one beside two equal axes, else the shorter.

    Raises:
        ValueError: If the array has not three or four axes, or both could hold the channels.

    Example:
        >>> channel_axis((100, 13, 64, 64), "x"), channel_axis((100, 60, 64, 8), "x"), channel_axis((5, 8, 8), "x")
        (1, 3, 0)
    """
    if len(shape) == 3:
        return 0
    if len(shape) != 4:
        raise ValueError(f"{title} has shape {shape}: expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    first, last = shape[1], shape[3]
    if channels is not None and (first == channels) != (last == channels):
        return 1 if first == channels else 3
    if channels is not None and first != channels:
        raise ValueError(f"{title} has shape {shape}, in which no axis is {channels} channels long")
    if (shape[2] == last) != (first == shape[2]):
        return 1 if shape[2] == last else 3
    if first == last:
        raise ValueError(f"{title} has shape {shape}, in which both the second and the last axis could be channels")
    return 1 if first < last else 3


def _image_key(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    for key in (*_IMAGE_KEYS, *shapes):
        if key in shapes and len(shapes[key]) in (3, 4):
            return key
    found = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "nothing"
    raise ValueError(f"{path} holds no array of images, which has three or four axes; it holds {found}")
