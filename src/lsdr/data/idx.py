"""The IDX files in which MNIST and its successors are published."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsdr.data.arrays import ArrayReader
from lsdr.data.labels import number_labels

_UNSIGNED_BYTE = 8
_LARGEST = 4 * 2**30


def is_idx(path: Path) -> bool:
    """Whether a file is named as IDX files are: ``...-idx3-ubyte`` or ``...-idx3-ubyte.gz``."""
    return path.name.removesuffix(".gz").endswith("idx3-ubyte")


def read_idx(path: Path) -> ArrayReader:
    """Open the images of an IDX file, with the labels of the file ``...-labels-idx1-ubyte`` beside it if there is one.

    Source: the file format as given with Y. LeCun, C. Cortes and C. Burges, The MNIST Database.

    Raises:
        ValueError: If a file is damaged or of another type, or the labels do not fit the images.
    """
    images = _read(path, 3)
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.exists():
        return ArrayReader(images, path.name)
    labels = _read(beside, 1)
    if len(labels) != len(images):
        raise ValueError(f"{beside} holds {len(labels)} labels for {len(images)} images")
    return ArrayReader(images, path.name, *number_labels(labels))


def _read(path: Path, axes: int) -> NDArray[np.uint8]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zeros, kind, found = struct.unpack(">HBB", file.read(4))
            if (zeros, kind, found) != (0, _UNSIGNED_BYTE, axes):
                raise ValueError(f"{path} is no IDX file of unsigned bytes with {axes} axes")
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            length = math.prod(shape)
            if length > _LARGEST:
                raise ValueError(f"{path} claims {length / 2**30:.1f} GB")
            content = file.read(length)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as IDX: {error}") from error
    if len(content) < length:
        raise ValueError(f"{path} ends after {len(content)} of {length} bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
