"""Files, folders and patterns of them, as data to learn from."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lsdr.data.folder import IMAGE_SUFFIXES
from lsdr.data.problem import Problems
from lsdr.representation.data.array_images import SIXTEEN_BIT, FileImages, read_arrays
from lsdr.representation.data.block_data import block_table, block_texts
from lsdr.representation.data.files import (
    PARQUET,
    find,
    folder_classes,
    kind_of,
    read_tables,
    read_text_files,
    tables_among,
)
from lsdr.representation.data.images import image_blocks, image_data
from lsdr.representation.data.memory import row_name, table_data
from lsdr.representation.data.options import IMAGE, RAW, TABLE, TEXT, Options
from lsdr.representation.data.raw_images import raw_images
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.stream_data import TEXT_COLUMNS, find_keys, stream_data
from lsdr.representation.data.stream_sources import HuggingFaceStream, WebDataset
from lsdr.representation.data.tables import Labels, find_label, labels_of
from lsdr.representation.data.text_data import text_data

# A column without a telling name holds texts, not categories, when its values are so long on average.
_LONG_TEXT = 60


def open_files(source: str | Path, options: Options) -> RepresentationData:
    """A path: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If there is nothing, or nothing to learn from.
    """
    path = Path(source).expanduser()
    try:
        if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            return image_data(source, **options.of(*IMAGE))
        paths = find(source)
    except PermissionError as error:
        raise ValueError(f"{path} may not be read: {error.strerror}") from error
    root = path if path.is_dir() else path.parent
    kind = kind_of(paths)
    if options.modality == "text" and kind == "image" and any(each.suffix.lower() == ".txt" for each in paths):
        kind = "text"
    if kind == "tar":
        return open_stream(WebDataset([each for each in paths if each.suffix.lower() == ".tar"]), options)
    if kind == "array":
        images, labels = read_arrays(paths, root, options.channels)
        return raw_images(images, str(source), labels=labels, **options.of(*RAW))
    if kind == "text":
        return _text_files([each for each in paths if each.suffix.lower() == ".txt"], root, str(source), options)
    if kind == "table":
        return _table_files(tables_among(paths, source), str(source), options)
    pictures = [each for each in paths if each.suffix.lower() in IMAGE_SUFFIXES]
    if pictures and path.is_dir() and _sixteen_bit(pictures):
        found = folder_classes(pictures, root)
        images = FileImages(pictures, root)
        return raw_images(images, str(source), labels=None if found is None else Labels(*found), **options.of(*RAW))
    return image_data(source, **options.of(*IMAGE))


def _sixteen_bit(paths: Sequence[Path]) -> bool:
    """Whether the first pictures that open, spread over all, are 16-bit grey."""
    modes = list[bool]()
    for number in range(min(8, len(paths))):
        try:
            with Image.open(paths[number * len(paths) // min(8, len(paths))]) as picture:
                modes.append(picture.mode in SIXTEEN_BIT)
        except Exception:
            pass
    return bool(modes) and all(modes)


def _text_files(paths: Sequence[Path], root: Path, title: str, options: Options) -> RepresentationData:
    texts, problems = read_text_files(paths, root, options.on_bad)
    found = folder_classes(paths, root) if options.label != "" else None
    return text_data(
        texts,
        title,
        name=FileImages(paths, root).name,
        labels=None if found is None else Labels(*found),
        problems=problems,
        **options.of(*TEXT),
    )


def _table_files(paths: Sequence[Path], title: str, options: Options) -> RepresentationData:
    if paths[0].suffix.lower() in PARQUET:
        return _parquet(paths, title, options)
    size = sum(path.stat().st_size for path in paths)
    if size > 4 * options.in_memory:
        raise ValueError(
            f"{title} is {size / 2**30:.1f} GB, which would have to be read at once; write it as Parquet, which is "
            'read as it is needed: polars.scan_csv("in.csv").sink_parquet("out.parquet", row_group_size=65536)'
        )
    return open_table(read_tables(paths), title, options, None)


def _parquet(paths: Sequence[Path], title: str, options: Options) -> RepresentationData:
    try:
        schema = pq.read_schema(paths[0])
        total = sum(_bytes(path) for path in paths)
        first = next(pq.ParquetFile(paths[0]).iter_batches(256, use_threads=False), None)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{paths[0]} cannot be read as Parquet: {error}") from error
    pictures = any(_is_bytes(field.type) for field in schema)
    large = total > options.in_memory
    if options.modality == "image" or (options.modality == "auto" and pictures and options.text is None):
        if large and options.limit is None:
            return image_blocks(paths, title, **options.of("size", "channels", "holdout", "on_bad"))
        return image_data(title, **options.of(*IMAGE))
    if not large:
        return open_table(read_tables(paths), title, options, None)
    column = _text_column(pa.Table.from_batches([] if first is None else [first], schema), title, options)
    if column is None:
        return block_table(paths, title, **options.of("label", "drop", "limit", "holdout"))
    return block_texts(
        paths, title, column=column, **options.of("label", "limit", "holdout", "length", "vocabulary", "tokenizer")
    )


def _bytes(path: Path) -> int:
    metadata = pq.read_metadata(path)
    return sum(int(metadata.row_group(number).total_byte_size) for number in range(metadata.num_row_groups))


def _is_bytes(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def open_table(table: pa.Table, title: str, options: Options, column: str | None) -> RepresentationData:
    """A table in memory: its texts, where it has a column of them, else its rows."""
    column = _text_column(table, title, options) if column is None else column
    if column is None:
        return table_data(table, title, **options.of(*TABLE))
    problems = Problems()
    target = find_label(table.schema, options.label, (column,), title)
    return text_data(
        [each or "" for each in table.column(column).to_pylist()],
        title,
        name=partial(row_name, title),
        labels=None if target is None else labels_of(table.column(target), problems, target, bool(options.label)),
        problems=problems,
        **options.of(*TEXT),
    )


def _text_column(table: pa.Table, title: str, options: Options) -> str | None:
    """The column of texts to learn from; None for a table."""
    if options.modality == "table":
        return None
    if options.text is not None:
        if options.text not in table.column_names:
            raise ValueError(f"{title} has no column {options.text!r}; its columns are {', '.join(table.column_names)}")
        return options.text
    words: list[str] = [
        field.name
        for field in table.schema
        if (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
        and field.name not in (options.label, *options.drop)
    ]
    lengths = {name: _length(table.column(name)) for name in words}
    named = {name.lower(): name for name in words}
    close = next((named[name] for name in TEXT_COLUMNS if name in named), None)
    longest: str | None = max(words, key=lengths.__getitem__, default=None)
    if options.modality == "text":
        chosen = close or longest
        if chosen is None:
            raise ValueError(f"{title} has no column of text; its columns are {', '.join(table.column_names)}")
        return chosen
    if close is not None and 2 * lengths[close] > _LONG_TEXT:
        return close
    return longest if longest is not None and lengths[longest] > _LONG_TEXT else None


def _length(column: Any) -> float:
    values = [each for each in column.slice(0, 256).to_pylist() if each]
    return sum(map(len, values)) / max(1, len(values))


def open_stream(stream: HuggingFaceStream | WebDataset, options: Options) -> RepresentationData:
    """A stream: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If it holds no rows, or nothing to learn from.
    """
    row = next(stream.rows(0, 0), None)
    if row is None:
        raise ValueError(f"{stream.title} holds no rows")
    if options.limit is not None:
        raise ValueError(f"limit={options.limit} is for data of known size; leave it out of a stream")
    kind, keys = find_keys(row, options.modality, options.label, options.text, stream.title)
    return stream_data(
        stream,
        kind,
        stream.named(keys),
        **options.of("drop", "size", "channels", "holdout", "length", "vocabulary", "tokenizer"),
    )
