"""NumPy archives, read without ever unpickling."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from lsdr.data.arrays import ArrayReader
from lsdr.data.labels import number_labels

_IMAGE_KEYS = ("images", "x", "x_train", "train_images", "arr_0")
_LABEL_KEYS = ("labels", "y", "y_train", "train_labels")
_LARGEST_COMPRESSED = 4 * 2**30


def read_npz(path: Path) -> ArrayReader:
    """Open the images, and labels if there are any, of an ``.npz`` file.

    The images are the first of the arrays named images, x, x_train, train_images, arr_0 that has three or four axes,
    else the first array that has; the labels are labels, y, y_train or train_labels. Layout and range: see
    `ArrayReader`. An archive written by `numpy.savez` is mapped, not read; a compressed one is read into memory.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is no such archive, is damaged, holds Python objects where images or labels are
            expected, claims more than 4 GB behind compression, or its labels do not fit its images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).stem: name for name in archive.namelist() if name.endswith(".npy")}
            headers = {key: _header(archive, name, path) for key, name in members.items()}
            key = _image_key(headers, path)
            array = _array(archive, members[key], headers[key], path)
            label = next((each for each in _LABEL_KEYS if each in headers), None)
            values = None if label is None else _array(archive, members[label], headers[label], path)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}") from error
    if values is None:
        return ArrayReader(array, path.name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (len(array),) or values.dtype.kind not in "iuUS":
        raise ValueError(
            f"{path}: the labels {label} are {values.dtype} of shape {values.shape}; expected one integer or string "
            f"for each of the {len(array)} images"
        )
    return ArrayReader(array, path.name, *number_labels(values))


Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> Header:
    with archive.open(name) as file:
        try:
            return _read_header(file)
        except ValueError as error:
            raise ValueError(f"{path}: {name} is not a NumPy array: {error}") from error


def _read_header(file: Any) -> Header:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"format {version[0]}.{version[1]} is not for plain numbers")


def _image_key(headers: Mapping[str, Header], path: Path) -> str:
    for key in (*_IMAGE_KEYS, *headers):
        if key in headers and len(headers[key][0]) in (3, 4):
            return key
    found = ", ".join(f"{key} {shape}" for key, (shape, _, _) in headers.items()) or "no arrays"
    raise ValueError(f"{path} holds no array of images, which has three or four axes; it holds {found}")


def _array(archive: zipfile.ZipFile, name: str, header: Header, path: Path) -> NDArray[Any]:
    """Map a stored member in place; decompress a compressed one."""
    shape, fortran, dtype = header
    if dtype.hasobject:
        raise ValueError(
            f"{path}: {name} holds Python objects, which could run code when unpickled; save plain numbers"
        )
    info = archive.getinfo(name)
    length = dtype.itemsize * math.prod(shape)
    order: Literal["C", "F"] = "F" if fortran else "C"
    if info.compress_type != zipfile.ZIP_STORED and length > _LARGEST_COMPRESSED:
        raise ValueError(
            f"{path}: {name} would take {length / 2**30:.1f} GB of memory; write it with numpy.savez, uncompressed, "
            f"so that it can be read in place"
        )
    with archive.open(name) as file:
        _read_header(file)
        # A compressed file's position counts decompressed bytes.
        offset = file.tell()
        if info.file_size - offset != length:
            raise ValueError(
                f"{path}: {name} claims {length} bytes for its shape {shape} and holds {info.file_size - offset}"
            )
        if info.compress_type != zipfile.ZIP_STORED:
            return np.frombuffer(file.read(length), dtype=dtype).reshape(shape, order=order)
    if length == 0:
        return np.empty(shape, dtype)
    with path.open("rb") as raw:
        start = _data_start(raw, info)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + offset, shape=shape, order=order)


def _data_start(raw: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose name and extra field have their own lengths."""
    raw.seek(info.header_offset + 26)
    name_length, extra_length = np.frombuffer(raw.read(4), dtype="<u2")
    return info.header_offset + 30 + int(name_length) + int(extra_length)
