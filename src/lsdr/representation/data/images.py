"""Images of any number of channels and any depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.data.images import ImageDataset
from lsdr.data.load import load_images
from lsdr.data.parquet import ParquetReader
from lsdr.data.problem import BadImageError
from lsdr.data.split import split
from lsdr.data.subset import Subset
from lsdr.moments import Moments
from lsdr.representation.data.block_order import BlockOrder, lay_out
from lsdr.representation.data.blocks import BlockRows, split_blocks
from lsdr.representation.data.chunks import ChunkReader, Groups
from lsdr.representation.data.fields import ImageFields
from lsdr.representation.data.representation_data import RepresentationData

# Enough images to know mean and deviation of each channel to a percent.
_LOOKED_AT = 512


def image_data(
    source: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    holdout: float | int = 0.1,
    on_bad: Literal["skip", "refuse"] = "skip",
    seed: int = 0,
) -> RepresentationData:
    """Images of 8 bits, grey or colour, from wherever `lsdr.data.load.load_images` finds them.

    Args:
        source: As there.
        size: As there.
        channels: As there.
        limit: As there.
        holdout: As in `lsdr.data.split.split`.
        on_bad: As there.
        seed: What decides which images are held out.
    """
    images: Any = load_images(source, size=size, channels=channels, on_bad=on_bad, limit=limit)
    parts = [Subset(images, indices.tolist()) for indices in split(images, holdout, seed=seed)]
    return RepresentationData(
        modality="image",
        train=parts[0],
        heldout=parts[1],
        fields=learn_channels(parts[0], images.shape, 0.0, 255.0),
        name=images.name,
        show=show_nothing,
        class_names=images.class_names,
        problems=images.problem_summary,
    )


def show_nothing(index: int) -> str:
    """Images say nothing in words."""
    return ""


def learn_channels(part: Any, shape: tuple[int, int, int], smallest: float, largest: float) -> ImageFields:
    """Mean and deviation of each channel over some images of a part, spread evenly.

    Args:
        part: Gives batches with "image".
        shape: Of every image.
        smallest: The raw value that becomes 0.
        largest: The raw value that becomes 1.
    """
    count = min(len(part), _LOOKED_AT)
    positions = [number * len(part) // count for number in range(count)]
    moments = Moments()
    for start in range(0, count, 64):
        image: Tensor = part.__getitems__(positions[start : start + 64])["image"]
        scaled = (image.to(torch.float64) - smallest) / (largest - smallest)
        moments.update(scaled.permute(0, 2, 3, 1).reshape(-1, shape[0]).numpy())
    deviation = np.sqrt(np.diagonal(moments.covariance()))
    return ImageFields(
        shape=shape,
        mean=tuple(float(each) for each in moments.mean),
        deviation=tuple(float(each) if each > 0 else 1.0 for each in deviation),
        largest=largest,
        smallest=smallest,
    )


def image_blocks(
    paths: Sequence[Path],
    title: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    holdout: float | int = 0.1,
    on_bad: Literal["skip", "refuse"] = "skip",
) -> RepresentationData:
    """Images of Parquet files that are read as they are needed: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If they cannot be read, or hold no images.
    """
    reader = _BlockReader(paths, title, on_bad)
    images = ImageDataset(reader, size=size, channels=channels, on_bad=on_bad)
    train, heldout = split_blocks(reader.groups, holdout, reader.layout)
    images.keep_apart(*(torch.from_numpy(part.rows(range(len(part)))) for part in (train, heldout)))
    parts = [_BlockImages(images, part) for part in (train, heldout)]
    return RepresentationData(
        modality="image",
        train=parts[0],
        heldout=parts[1],
        fields=learn_channels(parts[0], images.shape, 0.0, 255.0),
        name=images.name,
        show=show_nothing,
        class_names=images.class_names,
        problems=images.problem_summary,
    )


class _BlockReader(ParquetReader):
    """As its base, but a chunk at a time where that reads whole row groups."""

    def __init__(self, paths: Sequence[Path], title: str, on_bad: Literal["skip", "refuse"]) -> None:
        super().__init__(paths, title, on_bad)
        assert self._column is not None  # found, or an error raised
        self.groups = Groups([str(path) for path in self._paths])
        self.layout = lay_out(self.groups.lengths, self.groups.bytes / int(self.groups.starts[-1]), 1)
        kept = (self.layout.streams * self.layout.lanes + 2) * self.layout.mix
        self.chunks = ChunkReader(self.groups, [self._column], self.layout.chunk, _encoded, kept)

    def read(self, index: int) -> bytes:
        """The row's encoded image."""
        if self._labels is not None and self._labels[index] < 0:
            raise BadImageError("no_label", "the label is missing")
        group, within = self.groups.locate(np.array([index]))
        number, offset = divmod(int(within[0]), self.layout.chunk)
        try:
            with self._lock:
                value = self.chunks.get(int(group[0]), number)["image"][offset].as_py()
        except ValueError as error:
            raise BadImageError("unreadable", str(error)) from error
        if value is None:
            raise BadImageError("null", "the row has no image bytes")
        return bytes(value)


def _encoded(table: Any, begin: int) -> dict[str, Any]:
    column = table.column(0).combine_chunks()
    return {"image": pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column}


class _BlockImages(Dataset[Any]):
    """A part of images that are read as they are needed."""

    def __init__(self, images: ImageDataset, part: BlockRows) -> None:
        self.images, self.part = images, part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        return self.images.__getitems__(self.part.rows(positions).tolist())

    def order(self, batch_size: int, seed: int) -> BlockOrder:
        return self.part.order(batch_size, seed)

    def draw(self, count: int, seed: int) -> list[int]:
        return self.part.draw(count, seed)
