"""Documents in the index's tables: written, taken out, and put together again."""

import hashlib
import json
import sqlite3
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

from lsdr.genie.document import Document
from lsdr.genie.passage import Passage
from lsdr.genie.passages import split
from lsdr.genie.schema import PIPELINE


def sha256(data: bytes) -> str:
    """The name of some content."""
    return hashlib.sha256(data).hexdigest()


def _forget_words(connection: sqlite3.Connection, passages: list[tuple[int, str]]) -> None:
    connection.executemany("INSERT INTO words(words, rowid, quote) VALUES ('delete', ?, ?)", passages)
    connection.executemany("DELETE FROM passage WHERE id = ?", [(number,) for number, _ in passages])


def put(
    connection: sqlite3.Connection, document: Document, digest: str, path: str | None, old: int | None = None
) -> None:
    """Write a document, inside a transaction.

    Of a document that was there before, passages that are in the new text too are kept, wherever they now stand: only
    what changed is indexed anew.

    Args:
        connection: In a transaction.
        document: The document.
        digest: The SHA-256 of its file's bytes.
        path: Its file; None for an upload.
        old: The row it replaces.
    """
    text, spans = document.text, split(document)
    values = {
        "name": document.name,
        "kind": document.kind,
        "path": path,
        "sha256": digest,
        "text_sha256": sha256(text.encode()),
        "pages": json.dumps(document.pages),
        "problems": json.dumps(document.problems),
        "tail": text[spans[-1].end :] if spans else text,
        "passages": len(spans),
        "word_count": len(text.split()),
        "pipeline": PIPELINE,
        "added": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    kept: dict[str, list[int]] = defaultdict(list)
    if old is None:
        columns, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        old = connection.execute(f"INSERT INTO document({columns}) VALUES ({marks})", values).lastrowid
    else:
        assignments = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(f"UPDATE document SET {assignments} WHERE id = :id", {**values, "id": old})
        for number, quote in connection.execute("SELECT id, quote FROM passage WHERE document = ?", (old,)):
            kept[quote].append(number)
    following = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM passage").fetchone()[0]
    moved: list[tuple[int | str | None, ...]] = []
    new: list[tuple[int | str | None, ...]] = []
    before = 0
    for start, end in spans:
        quote, gap = text[start:end], text[before:start]
        page, line = document.where(start)
        before = end
        if kept.get(quote):
            moved.append((page, line, start, end, gap, kept[quote].pop()))
        else:
            new.append((following + len(new), old, page, line, start, end, gap, quote))
    _forget_words(connection, [(number, quote) for quote, numbers in kept.items() for number in numbers])
    connection.executemany(
        'UPDATE passage SET page = ?, line = ?, "start" = ?, "end" = ?, before = ? WHERE id = ?', moved
    )
    connection.executemany("INSERT INTO passage VALUES (?, ?, ?, ?, ?, ?, ?, ?)", new)
    connection.execute(
        "INSERT INTO words(rowid, quote) SELECT id, quote FROM passage WHERE id BETWEEN ? AND ?",
        (following, following + len(new) - 1),
    )


def forget(connection: sqlite3.Connection, row: int) -> None:
    """Take a document out, inside a transaction."""
    _forget_words(connection, connection.execute("SELECT id, quote FROM passage WHERE document = ?", (row,)).fetchall())
    connection.execute("DELETE FROM document WHERE id = ?", (row,))


def restore(connection: sqlite3.Connection, name: str) -> Document | None:
    """A document as it was read, put together from its passages; None where there is none of that name."""
    rows = connection.execute(
        "SELECT d.kind, d.pages, d.problems, d.tail, p.before, p.quote FROM document d "
        'LEFT JOIN passage p ON p.document = d.id WHERE d.name = ? ORDER BY p."start"',
        (name,),
    ).fetchall()
    if not rows:
        return None
    kind, pages, problems, tail = rows[0][:4]
    text = "".join(part for row in rows for part in row[4:] if part is not None) + tail
    return Document(name, kind, text, tuple(json.loads(pages)), tuple(json.loads(problems)))


PASSAGE = 'd.name, p.page, p.line, p."start", p."end", p.quote FROM passage p JOIN document d ON d.id = p.document'


def passages(connection: sqlite3.Connection, rows: dict[int, float]) -> list[Passage]:
    """Passages by their rows, each with its score."""
    found = []
    for row, score in rows.items():
        values = connection.execute(f"SELECT {PASSAGE} WHERE p.id = ?", (row,)).fetchone()
        found.append(replace(Passage(*values), score=score))
    return found


def stretch(connection: sqlite3.Connection, name: str, start: int, end: int) -> str | None:
    """A stretch of a document's text, from the passages it touches; None where the text has no such stretch."""
    row = connection.execute("SELECT id, tail FROM document WHERE name = ?", (name,)).fetchone()
    if row is None or not 0 <= start <= end:
        return None
    document, tail = row
    parts, first, last = [], None, 0
    for place, before, quote in connection.execute(
        'SELECT "start", before, quote FROM passage WHERE document = ? AND "start" >= coalesce('
        '(SELECT max("start") FROM passage WHERE document = ? AND "start" <= ?), 0) ORDER BY "start"',
        (document, document, start),
    ):
        first = place - len(before) if first is None else first
        parts += [before, quote]
        last = place + len(quote)
        if last >= end:
            break
    else:
        parts.append(tail)
        last += len(tail)
    first = first or 0
    return "".join(parts)[start - first : end - first] if end <= last else None
