"""Files, folders and globs of them, as one table."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import glob, has_magic
from itertools import chain
from pathlib import Path

import pyarrow as pa

from lsdr.regression.plan import Plan
from lsdr.regression.sources.csv import CsvFile, open_csv
from lsdr.regression.sources.csv_pieces import COMPRESSED
from lsdr.regression.sources.iterator import open_batches
from lsdr.regression.sources.parquet import ParquetFile, open_parquet
from lsdr.regression.sources.source import Part, Source

_SUFFIXES = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv", ".tsv", ".tab", ".txt"),
    "arrow": (".arrow", ".feather", ".ipc", ".arrows"),
}


def open_files(paths: str | Path | Sequence[str | Path]) -> Source:
    """Parquet, CSV (also .tsv, .gz, .bz2, .zst) or Arrow files as one table, in the order of their names.

    Args:
        paths: A file, a folder (searched through, hidden files left out), a glob such as "2024-*.parquet", or several.

    Raises:
        ValueError: If there is none, they are of several kinds, cannot be read, or have different columns.
    """
    given: Sequence[str | Path] = [paths] if isinstance(paths, str | Path) else paths
    found = list(chain.from_iterable(_files(Path(path)) for path in given))
    kinds = {_kind(path): path for path in found}
    if len(kinds) > 1:
        raise ValueError(
            f"{paths} holds files of several kinds ({', '.join(path.name for path in kinds.values())}): choose one by "
            "a glob in quotation marks"
        )
    description = str(found[0]) if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
    kind = next(iter(kinds))
    if kind == "parquet":
        return _parquet(found, description)
    return _csv(found, description) if kind == "csv" else _arrow(found, description)


def _parquet(paths: list[Path], description: str) -> Source:
    files = [open_parquet(path) for path in paths]
    for file in files[1:]:
        _same_columns(files[0], file)
    return Source(description, sum(file.rows for file in files), True, files[0].schema, _split(lambda: files))


def _csv(paths: list[Path], description: str) -> Source:
    first = open_csv(paths[0])

    def files() -> Iterator[CsvFile]:
        yield first
        for path in paths[1:]:
            file = open_csv(path, first)
            absent = [name for name in first.dialect.names if name not in file.dialect.names]
            if absent:
                raise ValueError(f"{path} has no column {absent[0]!r}, which {paths[0]} has")
            yield file

    return Source(description, None, True, first.schema, _split(files))


def _arrow(paths: list[Path], description: str) -> Source:
    def batches(_columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for path in paths:
            yield from _record_batches(path)

    return open_batches(batches, description, repeatable=True)


def _split(files: Callable[[], Iterable[ParquetFile | CsvFile]]) -> Callable[[Plan, bool], Iterator[Part]]:
    def split(plan: Plan, looking: bool) -> Iterator[Part]:
        index = 0
        for file in files():
            for rows, place, read in file.parts(plan, looking):
                yield Part(index, rows, plan, place, read)
                index += 1

    return split


def _same_columns(first: ParquetFile, other: ParquetFile) -> None:
    absent = [name for name in first.schema if name not in other.schema]
    if absent:
        raise ValueError(f"{other.path} has no column {absent[0]!r}, which {first.path} has")
    for name, kind in first.schema.items():
        if {kind, other.schema[name]} not in ({kind}, {"number", "boolean"}) and name not in other.empty | first.empty:
            raise ValueError(f"column {name!r} holds {kind} in {first.path}, but {other.schema[name]} in {other.path}")


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pa.memory_map(str(path)) as file:
            try:
                reader = pa.ipc.open_file(file)
                yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
            except pa.ArrowInvalid:
                file.seek(0)
                yield from pa.ipc.open_stream(file)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path} is not a readable Arrow file ({str(error).splitlines()[0]}): it may be cut short, write it again"
        ) from error


def _files(path: Path) -> list[Path]:
    path = path.expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [each for each in sorted(path.rglob("*")) if each.is_file() and _by_name(each) is not None]
        found = [
            each for each in found if not any(part.startswith((".", "_")) for part in each.relative_to(path).parts)
        ]
        if not found:
            raise ValueError(
                f"{path} holds no file named {', '.join('*' + one for many in _SUFFIXES.values() for one in many)}"
            )
        return found
    if has_magic(str(path)):
        found = sorted(Path(each) for each in glob(str(path), recursive=True) if Path(each).is_file())  # noqa: PTH207
        if not found:
            raise ValueError(f"no file is named like {path}")
        return found
    beside = path.parent if path.parent.is_dir() else Path()
    names = [each.name for each in beside.iterdir()]
    close = [str(beside / name) for name in difflib.get_close_matches(path.name, names, n=3)]
    raise ValueError(f"there is no {path}" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def _by_name(path: Path) -> str | None:
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.suffix.lower() in suffixes), None)


def _kind(path: Path) -> str:
    kind = _by_name(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file:
        start = file.read(6)
    if start[:4] == b"PAR1":
        return "parquet"
    if start == b"ARROW1":
        return "arrow"
    if kind is None:
        raise ValueError(
            f"{path} is no file that is known here: give it one of the endings "
            + ", ".join(one for many in _SUFFIXES.values() for one in many)
        )
    return kind
