"""Encoded images in Parquet files, read one row group at a time."""

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from lsdr.data.labels import LABEL_COLUMNS, is_label_type, labels_from_arrow
from lsdr.data.problem import BadImageError, Problems
from lsdr.data.reader import Strips

_KEPT_BYTES = 256 * 2**20
_LARGEST_ROW_GROUP = 2 * 2**30
_GROUPS_LOOKED_AT = 4
_VALUES_LOOKED_AT = 64


class ParquetReader:
    """The rows of one or more Parquet files (shards), in the order of their names.

    The image column is found by content: the first column of bytes, or of structs with a field ``bytes`` (as Hugging
    Face writes them), in which one of the first 64 values of one of the first four row groups opens as an image. The
    label column is the one that the Hugging Face metadata calls a class label, else the first named label, labels,
    class, class_label, target, category, y or fine_label (in any case) of integers or strings.

    Memory: row groups are read whole and the last 256 MB of them are kept, so that data larger than that is read
    fastest when its row groups are small.

    Args:
        paths: The files.
        title: What to call them together.
        on_bad: What to do about a shard that cannot be read: leave it out and count it, or stop.

    Raises:
        ValueError: If no file can be read, none has a column of images, or a row group is larger than 2 GB.
    """

    strips: Strips | None = None

    def __init__(self, paths: Sequence[Path], title: str, on_bad: Literal["skip", "refuse"] = "skip") -> None:
        self.title = title
        self.problems = Problems()
        self._paths: list[Path] = []
        self._groups: list[tuple[int, int]] = []  # (file, row group)
        self._column: str | None = None
        label: str | None = None
        names: tuple[str, ...] | None = None
        counts: list[int] = []
        labels: list[Any] = []
        for path in sorted(paths):
            try:
                with pq.ParquetFile(path) as file:
                    if self._column is None:
                        self._column = _image_column(file)
                        label, names = _label_column(file.schema_arrow)
                    metadata = file.metadata
                    groups = [metadata.row_group(each) for each in range(metadata.num_row_groups)]
                    sizes = [_column_bytes(group, self._column) for group in groups]
                    if label is not None:
                        column = file.read(columns=[label], use_threads=False).column(label)
                        labels.append(column.cast(labels[0].type) if labels else column)
            except (OSError, KeyError, pa.ArrowException) as error:
                if len(paths) == 1 or on_bad == "refuse":
                    raise ValueError(f"{path} cannot be used as Parquet of images: {error}") from error
                self.problems.add("unreadable_shard", path.name, str(error))
                continue
            if max(sizes, default=0) > _LARGEST_ROW_GROUP:
                raise ValueError(
                    f"{path} has a row group of {max(sizes) / 2**30:.1f} GB, which would have to be read at once; "
                    f"write it again with smaller ones: pyarrow.parquet.write_table(table, path, row_group_size=1000)"
                )
            self._groups.extend((len(self._paths), each) for each in range(len(groups)))
            self._paths.append(path)
            counts.extend(group.num_rows for group in groups)
        if not self._paths:
            reasons = "; ".join(f"{each.name}: {each.message}" for each in self.problems.listed)
            raise ValueError(f"{title} holds no Parquet file of images that can be read: {reasons}")
        self._starts = np.cumsum([0, *counts])
        self._labels: NDArray[np.int64] | None = None
        self.class_names: tuple[str, ...] | None = None
        if labels:
            chunks = [chunk for column in labels for chunk in column.chunks]
            self._labels, self.class_names = labels_from_arrow(pa.chunked_array(chunks, labels[0].type), names)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"} | {"_kept": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def name(self, index: int) -> str:
        """The file and the row in it, from 0."""
        file, _ = self._groups[self._group(index)]
        first = next(each for each, (other, _) in enumerate(self._groups) if other == file)
        return f"{self._paths[file].name}#{index - int(self._starts[first])}"

    def label(self, index: int) -> int:
        """The number of the row's class."""
        assert self._labels is not None
        return int(self._labels[index])

    def read(self, index: int) -> bytes:
        """The row's encoded image."""
        if self._labels is not None and self._labels[index] < 0:
            raise BadImageError("no_label", "the label is missing")
        group = self._group(index)
        with self._lock:
            column = self._read_group(group)
        if isinstance(column, BadImageError):
            raise column
        value = column[index - int(self._starts[group])].as_py()
        if value is None:
            raise BadImageError("null", "the row has no image bytes")
        return bytes(value)

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _read_group(self, group: int) -> Any:
        """The column of a row group, or what is wrong with it; the most recently used ones are kept."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        file, number = self._groups[group]
        column: Any
        try:
            # Opened anew each time: a million-row shard's footer takes a millisecond, and no open file has to survive
            # a fork or a pickle.
            with pq.ParquetFile(self._paths[file]) as opened:
                column = opened.read_row_group(number, columns=[self._column], use_threads=False).column(0)
            if pa.types.is_struct(column.type):
                column = pc.struct_field(column, "bytes")
        except (OSError, pa.ArrowException) as error:
            column = BadImageError("unreadable", f"row group {number} cannot be read: {error}")
        self._kept[group] = column
        while len(self._kept) > 1 and sum(getattr(each, "nbytes", 0) for each in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return column


def _image_column(file: Any) -> str:
    """The path of the column of encoded images, such as ``"image.bytes"``."""
    candidates: list[str] = []
    for column in file.schema_arrow:
        if _is_binary(column.type):
            candidates.append(column.name)
        elif pa.types.is_struct(column.type) and any(
            each.name == "bytes" and _is_binary(each.type) for each in column.type
        ):
            candidates.append(f"{column.name}.bytes")
    for candidate in candidates:
        for group in range(min(_GROUPS_LOOKED_AT, file.num_row_groups)):
            if any(_opens(value) for value in _first_values(file, group, candidate)):
                return candidate
    columns = ", ".join(f"{column.name} ({column.type})" for column in file.schema_arrow) or "none"
    raise pa.ArrowInvalid(
        f"there is no column of encoded images (bytes, or structs with a field bytes, of which one of the first "
        f"opens as PNG, JPEG, WebP, BMP, GIF or TIFF); its columns are {columns}"
    )


def _first_values(file: Any, group: int, column: str) -> list[bytes | None]:
    """The first values of a row group; none if it is damaged."""
    try:
        batch: Any = next(file.iter_batches(_VALUES_LOOKED_AT, row_groups=[group], columns=[column]), None)
    except (OSError, pa.ArrowException):
        return []
    values = [] if batch is None else batch.column(0).to_pylist()
    return [value["bytes"] if isinstance(value, dict) else value for value in values]


def _label_column(schema: Any) -> tuple[str | None, tuple[str, ...] | None]:
    """The label column and, where the Hugging Face metadata gives them, the names of its classes."""
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for column, feature in described.items():
            if feature.get("_type") == "ClassLabel" and column in schema.names:
                return column, tuple(str(name) for name in feature["names"])
    except (KeyError, ValueError, TypeError, AttributeError):  # written by others, and only a hint
        pass
    by_name = {column.name.lower(): column.name for column in schema if is_label_type(column.type)}
    return next((by_name[name] for name in LABEL_COLUMNS if name in by_name), None), None


def _is_binary(arrow_type: Any) -> bool:
    return bool(pa.types.is_binary(arrow_type) or pa.types.is_large_binary(arrow_type))


def _opens(value: bytes | None) -> bool:
    try:
        Image.open(io.BytesIO(value or b"")).close()
    except Exception:  # whatever a decoder says of bytes that may be anything
        return False
    return True


def _column_bytes(group: Any, column: str) -> int:
    """How large the column is in a row group, uncompressed."""
    for number in range(group.num_columns):
        if group.column(number).path_in_schema == column:
            return int(group.column(number).total_uncompressed_size)
    raise pa.ArrowInvalid(f"no column {column}")
