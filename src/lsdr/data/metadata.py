"""Captions written in a table beside the images: metadata.jsonl and metadata.csv."""

import csv
import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description", "txt")
_FILE_COLUMN = "file_name"


def read_metadata(path: Path, caption_column: str | None = None) -> dict[str, str | None]:
    r"""Read which caption belongs to which file.

    Args:
        path: A ``metadata.jsonl`` (one JSON object a line) or ``metadata.csv`` (with a header), UTF-8, with a column
            ``file_name``: paths within the folder of this file.
        caption_column: The column of captions; None takes the first of `CAPTION_COLUMNS` that there is.

    Returns:
        Captions (None where there is none) by file name, with ``/`` between folders and in Unicode's composed form,
        because the names of one and the same file are composed on one system and decomposed on another.

    Raises:
        ValueError: If the file is no such table, a name leads out of the folder, or one file has two captions.
        OSError: If it cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metadata.csv"
        >>> _ = path.write_text("file_name,text\na.png,a  red flower\n")
        >>> read_metadata(path)
        {'a.png': 'a red flower'}
    """
    captions: dict[str, str | None] = {}
    rows = _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)
    column, found = caption_column, False
    try:
        for number, row in rows:
            where = f"{path}, line {number}"
            if not isinstance(row.get(_FILE_COLUMN), str) or not row[_FILE_COLUMN]:
                raise ValueError(f"{where}: expected the name of an image in {_FILE_COLUMN!r}, came {row}")
            # A row may leave the caption out; then a later one settles which column it is.
            if column is None:
                column = find_caption_column([each for each in row if each != _FILE_COLUMN])
            found = found or column in row
            name = _within(row[_FILE_COLUMN], where)
            caption = None if column is None else as_caption(row.get(column), where)
            if captions.setdefault(name, caption) != caption:
                raise ValueError(f"{where}: {name} has another caption already; keep one row for each image")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    if captions and not found:
        known = f"the column {caption_column!r}" if caption_column else f"a column {', '.join(CAPTION_COLUMNS)}"
        raise ValueError(f"{path}: expected captions in {known}, found none; name the right one as caption_column")
    return captions


def find_caption_column(columns: Sequence[str]) -> str | None:
    """The column that holds captions by its name, in any case; the order of `CAPTION_COLUMNS` decides.

    Example:
        >>> find_caption_column(["id", "Prompt", "TEXT"])
        'TEXT'
    """
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in CAPTION_COLUMNS if name in by_name), None)


def as_caption(value: Any, where: str) -> str | None:
    r"""A caption with single spaces between its words; of several captions (a list) the first.

    Args:
        value: What a source holds.
        where: What to name in an error.

    Returns:
        The caption, "" if it is empty, None if there is none.

    Raises:
        ValueError: If it is no text.

    Example:
        >>> as_caption(["a red\n flower ", "a plant"], "row 0")
        'a red flower'
    """
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if value is None or isinstance(value, str):
        return None if value is None else " ".join(value.split())
    raise ValueError(f"{where}: expected a caption as text, came {value!r}; choose another caption_column")


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}, is not JSON ({error}); repair or remove it") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected an object with {_FILE_COLUMN!r}, came {row!r:.80}")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if _FILE_COLUMN not in (reader.fieldnames or ()):
            raise ValueError(
                f"{path}: expected a first line with the columns {_FILE_COLUMN} and text, came {reader.fieldnames}"
            )
        try:
            for row in reader:
                if None in row:
                    raise ValueError(
                        f"{path}, line {reader.line_num}: more values than columns; put a caption with commas in quotes"
                    )
                yield reader.line_num, dict(row)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}; repair or remove it") from error


def _within(name: str, where: str) -> str:
    """A file's name in one spelling; refused where it could mean a file outside the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        raise ValueError(
            f"{where}: {_FILE_COLUMN} {name!r} leads out of the folder of the images; expected a path within it, "
            f"without .. and with no / or drive at its start"
        )
    return composed(str(path))


def composed(name: str) -> str:
    r"""A name in Unicode's composed form (NFC).

    Example:
        >>> composed("cafe\u0301.png") == "caf\u00e9.png"
        True
    """
    return unicodedata.normalize("NFC", name)
