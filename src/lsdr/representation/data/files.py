"""What a path holds: images, texts or tables, and its tables and texts read into memory."""

import difflib
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lsdr.data.folder import IMAGE_SUFFIXES
from lsdr.data.problem import BadImageError, Problems
from lsdr.regression.sources.csv import Dialect, open_csv

PARQUET = (".parquet", ".pq")
TABLES = (*PARQUET, ".csv", ".tsv", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson")
ARRAYS = (".npy", ".npz")
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "eval"))
_LARGEST_TEXT = 64 * 2**20
_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?"]


def find(source: str | Path) -> list[Path]:
    """The files of a path: itself, those of a folder and its subfolders, or those that a pattern matches; sorted.

    Hidden files and folders are left out.

    Raises:
        ValueError: If there is none, with names that are close.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(_files(path))
    if any(each in path.name for each in "*?["):
        found = sorted(each for each in path.parent.glob(path.name) if each.is_file())
        if found:
            return found
        raise ValueError(f"no file is named like {path}")
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    close = [str(folder / name) for name in difflib.get_close_matches(path.name, names, n=3)]
    raise ValueError(
        f"there is no {path}; "
        + (f"did you mean {' or '.join(close)}?" if close else 'without files of your own, try "digits" or "wine"')
    )


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def kind_of(paths: Sequence[Path]) -> str:
    """What the files are, by their suffixes: "image", "array", "text", "tar", "table" or "other".

    Images go before the texts and tables beside them, which are their captions; then texts, then tables.

    Example:
        >>> kind_of([Path("a/1.png"), Path("a/1.txt")])
        'image'
    """
    suffixes = Counter(path.suffix.lower() for path in paths)
    kinds = {"image": tuple(IMAGE_SUFFIXES), "array": ARRAYS, "tar": (".tar",), "text": (".txt",), "table": TABLES}
    for kind, known in kinds.items():
        if any(suffix in suffixes for suffix in known):
            return kind
    return "other"


def tables_among(paths: Sequence[Path], source: str | Path) -> list[Path]:
    """Those of the files that are tables, all of one kind.

    Raises:
        ValueError: If they are of several kinds.
    """
    found = [path for path in paths if path.suffix.lower() in TABLES and path.name != "metadata.jsonl"]
    suffixes = sorted({path.suffix.lower() for path in found})
    if len(suffixes) > 1:
        raise ValueError(
            f"{source} holds tables of several kinds ({', '.join(suffixes)}); choose by a pattern in quotes"
        )
    return found


def read_tables(paths: Sequence[Path]) -> pa.Table:
    """Files of one kind as one table in memory.

    Raises:
        ValueError: If one cannot be read, or they do not fit each other.
    """
    tables = [_read(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        absent = [name for name in tables[0].column_names if name not in table.column_names]
        if absent:
            raise ValueError(f"{path} has no column {absent[0]!r}, which {paths[0]} has")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(
            f"{paths[0]} and the files beside it differ in what a column holds ({error}); make it numbers or text "
            "throughout"
        ) from error


def _read(path: Path) -> pa.Table:
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    suffix = path.suffix.lower()
    try:
        if suffix in PARQUET:
            with pq.ParquetFile(path) as file:
                return file.read(use_threads=False)
        if suffix in (".csv", ".tsv"):
            return _read_csv(path)
        if suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(path, infer_schema_length=None).to_arrow()
        with pa.OSFile(str(path)) as raw:
            try:
                return pa.ipc.open_file(raw).read_all()
            except pa.ArrowInvalid:
                raw.seek(0)
                return pa.ipc.open_stream(raw).read_all()
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        said = str(error).splitlines()
        raise ValueError(f"{path} cannot be read as {suffix[1:]}: {said[0] if said else error}") from error


def _read_csv(path: Path) -> pa.Table:
    raw = path.read_bytes()
    content = decode_text(raw).encode()
    dialect = _dialect(path, content) if content != raw else open_csv(path).dialect
    frame = pl.read_csv(
        io.BytesIO(content),
        separator=dialect.delimiter,
        decimal_comma=dialect.decimal == ",",
        infer_schema_length=None,
        null_values=_MISSING,
        try_parse_dates=True,
    )
    if frame.width == len(dialect.names):
        frame.columns = list(dialect.names)
    return frame.to_arrow()


def _dialect(path: Path, content: bytes) -> Dialect:
    """How a file that is not UTF-8 is written, by its content as UTF-8."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        try:
            return open_csv(copy).dialect
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), str(path))) from error


def decode_text(raw: bytes) -> str:
    r"""Bytes as text: UTF-8, UTF-16 with its mark, else Windows-1252 as most texts that are not UTF-8 are.

    Raises:
        ValueError: If the bytes are no text: they hold zero bytes.

    Example:
        >>> decode_text("caf\u00e9".encode("latin-1")) == decode_text("caf\u00e9".encode()) == "caf\u00e9"
        True
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        raise ValueError("zero bytes, which no text has")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError:  # five bytes have no meaning there; in Latin-1 each has one
            return raw.decode("latin-1")


def read_text_file(path: Path) -> str:
    """A text file.

    Raises:
        BadImageError: If it cannot be read, is too large or no text.
    """
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise BadImageError("too_large", "the file is larger than 64 MB")
        return decode_text(path.read_bytes())
    except OSError as error:
        raise BadImageError("unreadable", error.strerror or str(error)) from error
    except ValueError as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError("not_text", str(error)) from error


def folder_classes(paths: Sequence[Path], root: Path) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Subfolders as classes: where every file lies directly in one of two or more subfolders of the root.

    Example:
        >>> folder_classes([Path("r/a/1.txt"), Path("r/b/2.txt")], Path("r"))
        (array([0, 1]), ('a', 'b'))
    """
    parts = [path.relative_to(root).parts if path.is_relative_to(root) else () for path in paths]
    names = tuple(sorted({each[0] for each in parts if len(each) == 2}))
    if len(names) < 2 or any(len(each) != 2 for each in parts) or {name.lower() for name in names} <= _SPLITS:
        return None
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[each[0]] for each in parts], dtype=np.int64), names


def read_text_files(paths: Sequence[Path], root: Path, on_bad: str) -> tuple[list[str], Problems]:
    """Texts of files, "" and a problem noted where one cannot be used.

    Raises:
        ValueError: If one cannot be used and `on_bad` is "refuse".
    """
    texts, problems = list[str](), Problems()
    for path in paths:
        try:
            texts.append(read_text_file(path))
        except BadImageError as error:
            name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
            if on_bad == "refuse":
                raise ValueError(
                    f'{path} cannot be used: {error}; repair or remove it, or leave it out with on_bad="skip"'
                ) from error
            problems.add(error.kind, name, error.message)
            texts.append("")
    return texts, problems
