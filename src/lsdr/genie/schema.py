"""The index's file: its tables, and how it is opened."""

import sqlite3
import time
from pathlib import Path

from lsdr.genie.terms import TOKENIZER

APPLICATION = 0x4C534452  # "LSDR"
VERSION = 1
# Changes whenever the same bytes would give another text or other passages: documents of an older one are read anew.
PIPELINE = 1
_BUSY_SECONDS = 60.0

# A document's text is its passages with what stands before each, and a tail: it is stored once. The full-text index
# reads quotations from the table of passages.
_TABLES = f"""
CREATE TABLE document(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, path TEXT UNIQUE, sha256 TEXT NOT NULL,
    text_sha256 TEXT NOT NULL, pages TEXT NOT NULL, problems TEXT NOT NULL, tail TEXT NOT NULL,
    passages INTEGER NOT NULL, word_count INTEGER NOT NULL, pipeline INTEGER NOT NULL, added TEXT NOT NULL);
CREATE INDEX document_sha256 ON document(sha256);
CREATE TABLE passage(
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL, page INTEGER, line INTEGER NOT NULL, "start" INTEGER NOT NULL,
    "end" INTEGER NOT NULL, before TEXT NOT NULL, quote TEXT NOT NULL);
CREATE INDEX passage_place ON passage(document, "start");
CREATE VIRTUAL TABLE words USING fts5(quote, content='passage', content_rowid='id', tokenize='{TOKENIZER}');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, row);
CREATE TABLE cache(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _journal(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; while another process does the same, SQLite does not wait by itself."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


def connect(path: Path) -> sqlite3.Connection:
    """Open an index's file, and make it where there is none.

    Raises:
        ValueError: If the file is no index, or one of a newer version.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if not _pragma(connection, "application_id"):
            _create(connection, path)
        if _pragma(connection, "application_id") != APPLICATION:
            raise ValueError(f"{path} is a database, but not the Genie's: give another file")
        if _pragma(connection, "user_version") != VERSION:
            raise ValueError(
                f"{path} is an index of version {_pragma(connection, 'user_version')}, and this is version {VERSION}: "
                "give another file, or delete this one and add its documents again"
            )
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-65536")
        return connection
    except sqlite3.DatabaseError as error:
        connection.close()
        if "not a database" in str(error):
            raise ValueError(f"{path} is not an index: give another file") from error
        raise
    except BaseException:
        connection.close()
        raise


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and not _pragma(
        connection, "application_id"
    ):
        raise ValueError(f"{path} is a database, but not the Genie's: give another file")
    _journal(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _pragma(connection, "application_id"):
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
