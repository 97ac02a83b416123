"""Images with captions, from a folder, Parquet or a Hugging Face dataset."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lsdr.data.folder import FolderReader
from lsdr.data.huggingface import HuggingFaceReader, read_named, read_saved
from lsdr.data.metadata import (
    CAPTION_COLUMNS,
    METADATA_NAMES,
    as_caption,
    composed,
    find_caption_column,
    read_metadata,
)
from lsdr.data.parquet import ParquetReader
from lsdr.data.problem import Problem, Problems

_SIDECARS = (".txt", ".caption")
_LARGEST_SIDECAR = 2**20
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class CaptionedImages:
    """Encoded images and their captions by index; made by `load_captioned`.

    Attributes:
        title: What to call the source.
        problems: What was found beside the images: captions without an image or in an unknown encoding, files that
            are no images.
    """

    def __init__(
        self,
        reader: FolderReader | ParquetReader | HuggingFaceReader,
        captions: Sequence[str | None],
        problems: Problems,
    ) -> None:
        if len(reader) != len(captions):
            raise ValueError(f"{reader.title}: {len(reader)} images but {len(captions)} captions")
        self.title = reader.title
        self.problems = problems
        self._reader = reader
        self._captions = list(captions)

    def __len__(self) -> int:
        return len(self._captions)

    def name(self, index: int) -> str:
        """The image's file, or where it lies in its file."""
        return self._reader.name(index)

    def caption(self, index: int) -> str | None:
        """The caption, with single spaces between its words; "" if it is empty, None if there is none."""
        return self._captions[index]

    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            BadImageError: If there is nothing to decode.
        """
        return self._reader.read(index)


def load_captioned(source: str | Path, *, caption_column: str | None = None) -> CaptionedImages:
    """Open images with captions; captions are read now, images when asked for.

    Captions of a folder come from ``metadata.jsonl`` or ``metadata.csv`` (columns ``file_name`` and ``text``), in the
    folder or in a subfolder for the images below it, else from a text file beside the image (``a.txt`` or
    ``a.caption`` for ``a.png``; UTF-8, or UTF-16 with a byte order mark). White space of any kind, line ends too,
    becomes single spaces; of a list of captions the first is taken.

    Args:
        source: A folder of images (subfolders included), a Parquet file or a folder or pattern
            (``data/train-*.parquet``) of them with a column of encoded images and one of captions, a folder written by
            `datasets.save_to_disk`, or ``hf:owner/name`` or ``hf:owner/name:split``.
        caption_column: The column of captions; None takes the first of text, caption, captions, prompt, description
            and txt, in any case.

    Returns:
        The images; one without a caption is kept, with None.

    Raises:
        ValueError: If there is no such source, it holds no images, has no column of captions, or its metadata is
            damaged or names a file outside the folder.
        ImportError: If a Hugging Face dataset is asked for without the package datasets.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 8)).save(folder / "a.png")
        >>> _ = (folder / "a.txt").write_text("nothing, at night")
        >>> images = load_captioned(folder)
        >>> len(images), images.name(0), images.caption(0)
        (1, 'a.png', 'nothing, at night')
    """
    if isinstance(source, str) and source.startswith("hf:"):
        name = source.removeprefix("hf:")
        return _rows(read_named(name), _named_data(name), caption_column)
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _open_folder(path, caption_column)
        shards = sorted(path.parent.glob(path.name)) if path.suffix == ".parquet" else []
        if path.is_file() or shards:
            return _open_parquet([path] if path.is_file() else shards, str(path), caption_column)
    except PermissionError as error:
        raise ValueError(f"{path} may not be read: {error.strerror}") from error
    raise ValueError(f"there is no {path}; expected a folder of images with captions, or Parquet")


def _open_folder(path: Path, caption_column: str | None) -> CaptionedImages:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _rows(read_saved(path), _saved_data(path), caption_column)
    reader = FolderReader(path)
    if len(reader) == 0 and reader.parquet:
        splits = {match[0] for each in reader.parquet if (match := re.match(r"train|test|validation|val", each.name))}
        if len(splits) > 1:  # test data stays unseen
            raise ValueError(
                f"{path} holds shards of the splits {', '.join(sorted(splits))}; choose one: "
                f"{reader.parquet[0].parent}/{sorted(splits)[-1]}*.parquet, in quotation marks"
            )
        return _open_parquet(sorted(reader.parquet), str(path), caption_column)
    if len(reader) == 0:
        raise ValueError(f"{path} holds no images; expected PNG, JPEG, WebP, BMP, GIF or TIFF files with captions")
    return _captions_of_folder(path, reader, caption_column)


def _captions_of_folder(path: Path, reader: FolderReader, caption_column: str | None) -> CaptionedImages:
    names = [reader.name(index) for index in range(len(reader))]
    problems = Problems()
    tables, written = _tables(path, names, caption_column)
    used = len(tables)
    captions: list[str | None] = []
    beside: dict[str, str | None] = {}
    for name in names:
        if composed(name) in written:
            captions.append(written.pop(composed(name)))
            continue
        stem = name[: name.rfind(".")]
        if stem not in beside:  # a.png and a.jpg share a.txt, which is one file
            beside[stem], found = _beside(path, stem, problems)
            used += found
        captions.append(beside[stem])
    for name in written:
        problems.add("no_image", name, "has a caption in the metadata, but there is no such image in the folder")
    for kind, count in reader.problems.counts.items():
        # What was read as captions is not "ignored".
        if kind != "ignored" or count > used:
            problems.counts[kind] = count - used * (kind == "ignored")
    problems.listed += [each for each in reader.problems.listed if each.kind != "ignored" or not _is_text(each)]
    return CaptionedImages(reader, captions, problems)


def _tables(path: Path, names: Iterable[str], caption_column: str | None) -> tuple[list[Path], dict[str, str | None]]:
    """The tables of captions in the folder and the subfolders of its images, and what they say together."""
    folders = sorted({str(parent) for name in names for parent in PurePosixPath(name).parents})
    tables: list[Path] = []
    written: dict[str, str | None] = {}
    for folder in folders:
        here = [path / folder / name for name in METADATA_NAMES if (path / folder / name).is_file()]
        if len(here) > 1:
            raise ValueError(f"{path / folder} holds {' and '.join(METADATA_NAMES)}; keep one of them")
        for table in here:
            for name, caption in read_metadata(table, caption_column).items():
                whole = composed(str(PurePosixPath(folder, name)))
                if written.setdefault(whole, caption) != caption:
                    raise ValueError(f"{table}: {whole} has another caption in a folder above it; keep one")
        tables += here
    if caption_column is not None and not tables:
        raise ValueError(
            f"caption_column={caption_column!r} names a column, but {path} has no {' or '.join(METADATA_NAMES)}"
        )
    return tables, written


def _beside(path: Path, stem: str, problems: Problems) -> tuple[str | None, int]:
    """The caption in the text file beside an image, and how many files were looked into."""
    for suffix in _SIDECARS:
        file = path / f"{stem}{suffix}"
        try:
            with file.open("rb") as opened:
                raw = opened.read(_LARGEST_SIDECAR + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.add("unreadable_caption", f"{stem}{suffix}", error.strerror or str(error))
            return None, 1
        if len(raw) > _LARGEST_SIDECAR:
            problems.add("unreadable_caption", f"{stem}{suffix}", "larger than 1 MB: no caption")
            return None, 1
        try:
            text = raw.decode(_BYTE_ORDER_MARKS.get(raw[:2], "utf-8-sig"))
        except UnicodeDecodeError as error:
            problems.add("unreadable_caption", f"{stem}{suffix}", f"not UTF-8 ({error}); save it as UTF-8")
            return None, 1
        return as_caption(text, str(file)), 1
    return None, 0


def _is_text(problem: Problem) -> bool:
    return problem.name.endswith(_SIDECARS) or PurePosixPath(problem.name).name in METADATA_NAMES


def _open_parquet(paths: list[Path], title: str, caption_column: str | None) -> CaptionedImages:
    # A shard that cannot be read is refused: were it left out, captions and images would no longer be side by side.
    reader = ParquetReader(paths, title, "refuse")
    column, captions = caption_column, list[str | None]()
    for path in sorted(paths):
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                column = column or find_caption_column([each.name for each in schema if _is_caption_type(each.type)])
                if column is None or column not in schema.names:
                    raise ValueError(_no_column(str(path), caption_column, schema.names))
                values = file.read(columns=[column], use_threads=False).column(column).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path}: its captions cannot be read: {error}") from error
        captions += [as_caption(value, f"{path}, row {row}") for row, value in enumerate(values)]
    return CaptionedImages(reader, captions, reader.problems)


def _rows(reader: HuggingFaceReader, data: Any, caption_column: str | None) -> CaptionedImages:
    schema = data.select_columns(list(data.features)).with_format("arrow").data.schema
    named = find_caption_column([each.name for each in schema if _is_caption_type(each.type)])
    column = caption_column or named
    if column is None or column not in data.features:
        raise ValueError(_no_column(reader.title, caption_column, list(data.features)))
    values = data.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    captions = [as_caption(value, f"{reader.title}, row {row}") for row, value in enumerate(values)]
    return CaptionedImages(reader, captions, reader.problems)


def _saved_data(path: Path) -> Any:
    """The split that `read_saved` takes."""
    import datasets

    data = datasets.load_from_disk(str(path))
    return data.get("train", next(iter(data.values()))) if isinstance(data, dict) else data


def _named_data(name: str) -> Any:
    """The split that `read_named` takes."""
    import datasets

    repository, _, split = name.partition(":")
    data = datasets.load_dataset(repository, split=split or None)
    return data.get("train", next(iter(data.values()))) if isinstance(data, dict) else data


def _no_column(title: str, wanted: str | None, columns: Sequence[str]) -> str:
    expected = repr(wanted) if wanted else ", ".join(CAPTION_COLUMNS)
    return (
        f"{title}: expected a column of captions ({expected}), came {', '.join(columns)}; "
        f"name the right one as caption_column"
    )


def _is_caption_type(arrow_type: Any) -> bool:
    """Text, dictionary-encoded or not, or lists of text."""
    if pa.types.is_dictionary(arrow_type) or pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))
