"""What can be streamed: Hugging Face datasets and webdataset's tar files."""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lsdr.representation.data.stream import Keys, Row, stream_shape

_BATCH = 64


class HuggingFaceStream:
    """A Hugging Face dataset, read as it comes (package datasets).

    Args:
        name: ``owner/name`` or a folder, and perhaps ``:split``; the split is train, or the only one.

    Raises:
        ValueError: If it cannot be opened.
        ImportError: If the package is missing.
    """

    def __init__(self, name: str) -> None:
        self.title = f"hf-stream:{name}"
        repository, _, split = name.partition(":")
        self._repository, self._split = repository, split
        data = self._load()
        self.streams, self.lanes = stream_shape(max(1, int(data.num_shards)))
        self.parts = self.streams * self.lanes
        self.features: dict[str, Any] = dict(data.features or {})
        info = getattr(data.info, "splits", None) or {}
        counted = info.get(self._split)
        self.count: int | None = None if counted is None or not counted.num_examples else int(counted.num_examples)
        self._data = data

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise ImportError('Hugging Face streams need the package datasets: pip install "lsdr[datasets]"') from error
        try:
            found = datasets.load_dataset(self._repository, streaming=True)
        except Exception as error:  # no network, no such name, no permission, a format it does not know: each its own
            raise ValueError(f"{self.title} cannot be opened: {error}") from error
        if not self._split:
            self._split = "train" if "train" in found else next(iter(found)) if len(found) == 1 else ""
        if self._split not in found:
            raise ValueError(
                f"{self.title} has the splits {', '.join(found)}; name one, as hf-stream:{self._repository}:"
                f"{next(iter(found))}"
            )
        data = found[self._split]
        if data.features is None:
            data = data._resolve_features()
        for column, feature in (data.features or {}).items():
            if isinstance(feature, datasets.Image):
                # Encoded, so that damaged images are met, named and counted here and not inside the library.
                data = data.cast_column(column, datasets.Image(decode=False))
        return data

    def rows(self, part: int, skip: int) -> Iterator[Row]:
        """The rows of a part, the first `skip` left out."""
        data = self._data.shard(num_shards=self.parts, index=part) if self.parts > 1 else self._data
        # By batches, because row by row the package would deal its shards to DataLoader workers, which the order of the
        # rows does already.
        for batch in (data.skip(skip) if skip else data).iter(batch_size=_BATCH):
            names = list(batch)
            yield from (dict(zip(names, row, strict=True)) for row in zip(*batch.values(), strict=True))

    def table(self) -> pa.Table:
        """All rows in memory, by way of the package's cache.

        Raises:
            ValueError: If they cannot be loaded.
        """
        import datasets

        try:
            found: pa.Table = datasets.load_dataset(self._repository, split=self._split).with_format("arrow")[:]
        except Exception as error:  # as above
            raise ValueError(f"{self.title} cannot be loaded: {error}") from error
        return found

    def named(self, keys: Keys) -> Keys:
        """With the names of the classes, where the dataset says them."""
        names = getattr(self.features.get(keys.label or ""), "names", None)
        return keys if names is None else replace(keys, names=tuple(str(name) for name in names))

    def name(self, part: int, row: int) -> str:
        """The part and the row in it."""
        return f"{self.title}, part {part}, row {row}"


class WebDataset:
    """Samples of tar files: the files of one name, told apart by their suffixes (package webdataset).

    Args:
        paths: The tar files (shards).

    Raises:
        ImportError: If the package is missing.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        try:
            import webdataset.tariterators  # noqa: F401
        except ImportError as error:
            raise ImportError('Tar files need the package webdataset: pip install "lsdr[webdataset]"') from error
        self.title = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self.streams, self.lanes = stream_shape(len(paths))
        self.parts = self.streams * self.lanes
        self.shards = [[str(path) for path in paths[part :: self.parts]] for part in range(self.parts)]
        self.count: int | None = None

    def rows(self, part: int, skip: int) -> Iterator[Row]:
        """The samples of a part, the first `skip` left out.

        Raises:
            ValueError: If a tar file cannot be read.
        """
        yield from islice(self._samples(part), skip, None)

    def _samples(self, part: int) -> Iterator[Row]:
        from webdataset.tariterators import group_by_keys, tar_file_expander

        for shard in self.shards[part]:
            # Only these two stages of the package: its usual ones deal shards to workers, which the order of the rows
            # does already, and leave files open.
            try:
                with Path(shard).open("rb") as file:
                    expanded = tar_file_expander([{"url": shard, "stream": file}])
                    yield from group_by_keys(expanded)
            except (OSError, EOFError, ValueError, tarfile.TarError) as error:
                said = error.args[0] if error.args else error
                raise ValueError(f"{shard} cannot be read as a tar file: {said}") from error

    def named(self, keys: Keys) -> Keys:
        """As they are: tar files name no classes."""
        return keys

    def name(self, part: int, row: int) -> str:
        """The shards of a part and the sample in it."""
        return f"{', '.join(Path(path).name for path in self.shards[part])}, sample {row}"
