"""Hugging Face datasets, on disk or by name (optional extra `datasets`)."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.data.labels import LABEL_COLUMNS, is_label_type, labels_from_arrow
from lsdr.data.problem import BadImageError, Problems
from lsdr.data.reader import Strips


def read_saved(folder: Path) -> "HuggingFaceReader":
    """Open a folder written by `datasets.Dataset.save_to_disk` (of a dataset with splits: train, or the only one).

    Raises:
        ValueError: If it cannot be read, or has several splits and none called train.
        ImportError: If the package datasets is missing.
    """
    datasets = _import()
    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises many kinds on damaged folders
        raise ValueError(f"{folder} cannot be read as a Hugging Face dataset: {error}") from error
    return HuggingFaceReader(_one_split(data, str(folder), f"its folder, such as {folder}/"), str(folder))


def read_named(name: str) -> "HuggingFaceReader":
    """Load a dataset by name from the Hugging Face Hub, or from its local cache.

    Args:
        name: ``owner/name`` or ``owner/name:split``.

    Raises:
        ValueError: If it cannot be loaded, or has several splits and none called train.
        ImportError: If the package datasets is missing.
    """
    datasets = _import()
    repository, _, split = name.partition(":")
    try:
        data = datasets.load_dataset(repository, split=split or None)
    except Exception as error:  # no network, no such name, no permission, a format it does not know: each its own kind
        raise ValueError(f"the Hugging Face dataset {name} cannot be loaded: {error}") from error
    return HuggingFaceReader(_one_split(data, name, f"it as hf:{repository}:"), f"hf:{name}")


class HuggingFaceReader:
    """The rows of a `datasets.Dataset`, which stay in its memory-mapped files.

    The image column is the first of type Image; the label column the first of type ClassLabel, else the first named
    as `lsdr.data.parquet.ParquetReader` says.

    Args:
        data: The dataset.
        title: What to call it.

    Raises:
        ValueError: If there is no column of images.
    """

    strips: Strips | None = None

    def __init__(self, data: Any, title: str) -> None:
        datasets = _import()
        self.title = title
        self.problems = Problems()
        features = data.features
        column = next((name for name, feature in features.items() if isinstance(feature, datasets.Image)), None)
        if column is None:
            raise ValueError(
                f"{title} has no column of type Image; its columns are {dict(features)}. Cast the right one with "
                f'data.cast_column("name", datasets.Image()) and save it again'
            )
        self._column: str = column
        # Encoded, so that damaged images are met, named and counted here and not inside the library.
        self._data = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self._labels: NDArray[np.int64] | None = None
        self.class_names: tuple[str, ...] | None = None
        label, names = _label_column(data, datasets)
        if label is not None:
            table = data.select_columns([label]).with_format("arrow")[:]
            self._labels, self.class_names = labels_from_arrow(table.column(label), names)

    def __len__(self) -> int:
        return len(self._data)

    def name(self, index: int) -> str:
        """The row, from 0."""
        return f"{self.title}#{index}"

    def label(self, index: int) -> int:
        """The number of the row's class."""
        assert self._labels is not None
        return int(self._labels[index])

    def read(self, index: int) -> bytes:
        """The row's encoded image."""
        if self._labels is not None and self._labels[index] < 0:
            raise BadImageError("no_label", "the label is missing")
        row = self._data[index][self._column]
        if row is None or (row["bytes"] is None and not row["path"]):
            raise BadImageError("null", "the row has no image bytes")
        if row["bytes"] is not None:
            return bytes(row["bytes"])
        try:
            return Path(row["path"]).read_bytes()
        except OSError as error:
            raise BadImageError("unreadable", f"{row['path']}: {error.strerror}") from error


def _import() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ImportError('Hugging Face datasets need the package datasets: pip install "lsdr[datasets]"') from error
    module: ModuleType = datasets
    return module


def _one_split(data: Any, name: str, how: str) -> Any:
    if not isinstance(data, dict):
        return data
    if "train" in data:
        return data["train"]
    if len(data) == 1:
        return next(iter(data.values()))
    raise ValueError(f"{name} has the splits {', '.join(data)} and none called train; name {how}{next(iter(data), '')}")


def _label_column(data: Any, datasets: ModuleType) -> tuple[str | None, tuple[str, ...] | None]:
    for name, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            return name, tuple(feature.names)
    schema = data.data.schema
    by_name = {name.lower(): name for name in data.features if is_label_type(schema.field(name).type)}
    return next((by_name[name] for name in LABEL_COLUMNS if name in by_name), None), None
