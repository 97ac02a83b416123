"""Files into the index: what is new, changed, gone or renamed."""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lsdr.genie.limits import MAX_BYTES
from lsdr.genie.problem import Problem, UnreadableError
from lsdr.genie.readers.clean import clean
from lsdr.genie.readers.read import SUFFIXES, expand, read
from lsdr.genie.schema import PIPELINE
from lsdr.genie.store import forget, put, sha256

Outcome = Literal["new", "changed", "unchanged", "removed", "renamed"]
Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Added:
    """What adding did: the names of the documents that are new, changed, unchanged, gone, and renamed (the new names).

    A file that cannot be read is in `problems`; if it was read before, and its content changed, it is in `removed` too:
    what it no longer says is not quoted.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def _named(paths: Iterable[Path], root: str | Path | None, prefix: str, refused: list[Problem]) -> dict[Path, str]:
    """Every file meant, and what it is to be called."""
    found: dict[Path, str] = {}
    for given in paths:
        above = given.parent if root is None else Path(os.path.abspath(root))  # noqa: PTH100
        for each in expand([given], refused):
            name = each.relative_to(above) if each.is_relative_to(above) else Path(each.name)
            found.setdefault(each, prefix + clean(name.as_posix()))
    return found


def _gone(path: str | None) -> bool:
    return path is not None and not os.path.lexists(path)


def _free(connection: sqlite3.Connection, path: Path, name: str) -> tuple[str, int | None]:
    """A name nobody has: with the folders above in front where it takes that; or that of a file which is gone."""
    above = list(path.parts[1 : len(path.parts) - len(Path(name).parts)])
    candidates = ["/".join([*above[len(above) - more :], name]) for more in range(len(above) + 1)]
    for candidate in candidates:
        row = connection.execute("SELECT id, path FROM document WHERE name = ?", (candidate,)).fetchone()
        if row is None:
            return candidate, None
        if _gone(row[1]):
            return candidate, int(row[0])
    number = 2
    while connection.execute("SELECT 1 FROM document WHERE name = ?", (f"{number}/{name}",)).fetchone():
        number += 1
    return f"{number}/{name}", None


def _kind(name: str) -> str | None:
    return SUFFIXES.get(Path(name).suffix.lower())


def _rename(connection: sqlite3.Connection, path: Path, name: str, digest: str) -> str | None:
    """The name of a document whose file is gone, and whose content and kind this file has, after it got this name."""
    rows = connection.execute(
        "SELECT id, name, kind, path FROM document WHERE sha256 = ? AND pipeline = ? ORDER BY name", (digest, PIPELINE)
    ).fetchall()
    for row, _, kind, old in rows:
        if kind == _kind(path.name) and _gone(old):
            connection.execute("UPDATE document SET name = '', path = NULL WHERE id = ?", (row,))
            free, owner = _free(connection, path, name)
            if owner is not None:
                forget(connection, owner)
            connection.execute("UPDATE document SET name = ?, path = ? WHERE id = ?", (free, str(path), row))
            return free
    return None


def _known(connection: sqlite3.Connection, path: Path) -> tuple[int, str, str, int] | None:
    row = connection.execute("SELECT id, name, sha256, pipeline FROM document WHERE path = ?", (str(path),)).fetchone()
    return None if row is None else tuple(row)


def _file(
    connection: sqlite3.Connection, transaction: Transaction, path: Path, name: str
) -> tuple[Outcome, str, Problem | None]:
    # A file that is too large is left to the reader, which says so.
    data = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_BYTES else None
    if data is None:
        read(name, path)
        raise UnreadableError(name, "is not a file")
    digest, known = sha256(data), _known(connection, path)
    if known and known[2:] == (digest, PIPELINE):
        return "unchanged", known[1], None
    if not known:
        with transaction():
            renamed = _rename(connection, path, name, digest)
        if renamed:
            return "renamed", renamed, None
    document, problem = None, None
    try:
        document = read(path.name, data)
        document.text.encode()
    except UnreadableError as error:
        problem = Problem(name, error.message)
    except UnicodeEncodeError:
        problem = Problem(name, "has halves of characters (lone surrogates): they cannot be stored")
    with transaction():
        # Another process may have been quicker.
        known = _known(connection, path)
        if document is None or problem is not None:
            if known:
                forget(connection, known[0])
            return "removed", known[1] if known else "", problem
        if known and known[2:] == (digest, PIPELINE):
            return "unchanged", known[1], None
        name, old = (known[1], known[0]) if known else _free(connection, path, name)
        put(connection, replace(document, name=name), digest, str(path), old)
    return ("new" if old is None else "changed"), name, None


def add(
    connection: sqlite3.Connection,
    transaction: Transaction,
    paths: Iterable[str | Path],
    root: str | Path | None,
    prefix: str,
    progress: Progress | None,
) -> Added:
    """Add files and folders (see `lsdr.genie.index.Index.add`)."""
    folders = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links keep their own names
    problems: list[Problem] = []
    files = _named(folders, root, prefix, problems)
    found: dict[Outcome, list[str]] = {"new": [], "changed": [], "unchanged": [], "removed": [], "renamed": []}
    for done, (path, name) in enumerate(files.items(), start=1):
        try:
            outcome, called, problem = _file(connection, transaction, path, name)
            if called:
                found[outcome].append(called)
            if problem:
                problems.append(problem)
        except UnreadableError as error:
            problems.append(Problem(name, error.message))
        except OSError as error:
            problems.append(Problem(name, f"cannot be opened: {error.strerror or error}"))
        except UnicodeEncodeError:
            problems.append(Problem(ascii(name), "has a name that is no text: rename it"))
        if progress:
            progress(done, len(files), name)
    for folder in folders:
        if folder.is_dir():
            found["removed"] += _vanished(transaction, folder, files)
    new, changed, unchanged, removed, renamed = map(tuple, found.values())
    return Added(new, changed, unchanged, removed, renamed, tuple(problems))


def _vanished(transaction: Transaction, folder: Path, files: Collection[Path]) -> list[str]:
    """Documents of a folder whose files are not in it any more are taken out."""
    prefix = str(folder).rstrip(os.sep) + os.sep
    removed = []
    with transaction() as connection:
        for row, name, path in connection.execute(
            "SELECT id, name, path FROM document WHERE substr(path, 1, ?) = ? ORDER BY name", (len(prefix), prefix)
        ).fetchall():
            if Path(path) not in files:
                forget(connection, row)
                removed.append(name)
    return removed


def add_bytes(connection: sqlite3.Connection, transaction: Transaction, name: str, data: bytes) -> Added:
    """Add one upload (see `lsdr.genie.index.Index.add_bytes`)."""
    digest, name = sha256(data), clean(name).replace("\n", " ")
    document = read(name, data)
    with transaction():
        row = connection.execute("SELECT id, path, sha256, pipeline FROM document WHERE name = ?", (name,)).fetchone()
        while row is not None and row[1] is not None:  # a file's name stays the file's
            name = f"uploads/{name}"
            row = connection.execute(
                "SELECT id, path, sha256, pipeline FROM document WHERE name = ?", (name,)
            ).fetchone()
        if row is not None and row[2:] == (digest, PIPELINE):
            return Added(unchanged=(name,))
        try:
            put(connection, replace(document, name=name), digest, None, row[0] if row else None)
        except UnicodeEncodeError as error:
            raise UnreadableError(name, "has halves of characters (lone surrogates): they cannot be stored") from error
    return Added(changed=(name,)) if row else Added(new=(name,))
