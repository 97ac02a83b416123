"""Cutting CSV between records, so that pieces can be parsed apart: a line break inside quotation marks is no end."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

# Bytes of a piece, and what one record may take before a quotation mark that nobody closed is the likelier reading.
PIECE_BYTES = 2**24
_MOST_BYTES = 2**28
COMPRESSED = (".gz", ".bz2", ".zst")


def pieces(path: Path, start: int, size: int = PIECE_BYTES, delimiter: str = ",") -> Iterator[tuple[int, bytes]]:
    """Whole records from byte `start` (of the decompressed text) on: about `size` bytes at a time, each with its start.

    Raises:
        ValueError: If a quotation mark is not closed, or the file cannot be decompressed.
    """
    with opened(path) as file:
        _skip(file, start)
        rest = b""
        want = size
        while True:
            read = _read(file, path, want - len(rest)) if len(rest) < want else b""
            data = rest + read
            last = len(read) < want - len(rest)
            if not data:
                return
            end = _end(data, delimiter, last)
            if end is None:
                if last or len(data) >= _MOST_BYTES:
                    raise ValueError(
                        f"{path} has a quotation mark that is not closed, in a record that starts at byte {start}: "
                        "close it, or double it if it belongs to the text"
                    )
                rest, want = data, 2 * len(data)
                continue
            yield start, data[:end]
            start, rest, want = start + end, data[end:], size
            if last and not rest:
                return


def opened(path: Path) -> Any:
    """The file, decompressed where its name says that it is compressed."""
    return pa.input_stream(str(path)) if path.suffix.lower() in COMPRESSED else path.open("rb")


def piece_at(path: Path, start: int, size: int) -> bytes:
    """So many bytes from `start` on, of a file that is not compressed."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _skip(file: Any, count: int) -> None:
    if hasattr(file, "seekable") and file.seekable():
        file.seek(count)
        return
    while count > 0:
        read = len(file.read(min(count, PIECE_BYTES)))
        if not read:
            return
        count -= read


def _read(file: Any, path: Path, count: int) -> bytes:
    found = []
    try:
        while count > 0:
            read = file.read(count)
            if not read:
                break
            found.append(bytes(read))
            count -= len(read)
    except (OSError, pa.ArrowException, EOFError) as error:
        raise ValueError(f"{path} cannot be decompressed ({error}): it may be cut short, copy it again") from error
    return b"".join(found)


def _end(data: bytes, delimiter: str, last: bool) -> int | None:
    """Where the last whole record ends; None where no record is whole."""
    marks = data.count(b'"')
    if last and marks % 2 == 0:
        return len(data)
    # An even number of marks before a line break: it is outside. Usually the last break decides at once.
    at, before = len(data), marks
    while not last:
        cut = data.rfind(b"\n", 0, at)
        if cut < 0:
            break
        before -= data.count(b'"', cut, at)
        if before % 2 == 0:
            return cut + 1
        at = data.rfind(b'"', 0, cut) + 1
        if at == 0:
            break
    # Inch marks and the like are no quotation marks: only those that open a field count, found one by one.
    fields = list(_quoted(delimiter).finditer(data))
    if last:
        return None if fields and not fields[-1]["closed"] else len(data)
    free = bytearray(data)
    for field in fields:
        free[field.start() : field.end()] = b'"' * (field.end() - field.start())
    return (free.rfind(b"\n") + 1) or None


@lru_cache(maxsize=8)
def _quoted(delimiter: str) -> re.Pattern[bytes]:
    mark = re.escape(delimiter.encode())
    return re.compile(rb"(?<![^\r\n" + mark + rb'])"[^"]*+(?:""[^"]*+)*+(?P<closed>"|\Z)')
