"""The index: documents and their passages in one file."""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lsdr.genie import adding, near, store
from lsdr.genie.adding import Added, Progress
from lsdr.genie.document import Document
from lsdr.genie.near import Near
from lsdr.genie.passage import Passage
from lsdr.genie.schema import connect
from lsdr.genie.search import search
from lsdr.genie.terms import term_spans, terms

# Of so many words that look alike the first passages are looked at, to see how they are written.
_LOOKED_AT = 50
# The terms of which the rarer is the better guess: short ones are names and acronyms.
_SHORT = 5
# Capitals throughout are an acronym up to so many; longer they are a heading.
_ACRONYM = 8


def _is_acronym(term: str) -> bool:
    return term.isupper() and len(term) <= _ACRONYM


@dataclass(frozen=True)
class Entry:
    """A document of the index.

    Args:
        name: What it is called.
        kind: Its kind (see `lsdr.genie.document.Document`).
        path: Its file; None for an upload.
        sha256: Of the file's bytes.
        pages: How many pages; 0 for a kind without pages.
        passages: How many passages.
        words: How many words.
        added: When it was read, UTC.
        problems: What could not be read, or not for certain.
    """

    name: str
    kind: str
    path: str | None
    sha256: str
    pages: int
    passages: int
    words: int
    added: str
    problems: tuple[str, ...] = ()


class Index:
    r"""Documents, passages and their words in one SQLite file.

    Any number of threads and processes may read and write at once: each thread has its own connection, each document
    is written in one transaction, and a process that is killed leaves every document whole, or not there. The answer to
    a search does not depend on the order in which documents were added.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Index.open(Path(folder) / "index.sqlite") as index:
        ...     _ = index.add_bytes("notes.md", b"# Upscalers\n\nLDSR is an advanced yet slow upscaler.")
        ...     [(each.document, each.line, each.quote) for each in index.search("a slow upscaler?")]
        [('notes.md', 1, '# Upscalers\n\nLDSR is an advanced yet slow upscaler.')]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._words: tuple[str, list[tuple[str, int, int]]] = ("", [])
        self._closed = False

    @classmethod
    def open(cls, path: str | Path) -> "Index":
        """Open an index, and make it where there is none.

        Raises:
            ValueError: If the file is something else, or an index of another version.
        """
        index = cls(path)
        index.path.parent.mkdir(parents=True, exist_ok=True)
        _ = index.connection
        return index

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if self._closed:
            raise ValueError(f"{self.path} has been closed: open it again")
        if found is None:
            found = self._local.connection = connect(self.path)
            with self._lock:
                self._connections.append(found)
        return found

    def close(self) -> None:
        """Close every thread's connection."""
        self._closed = True
        with self._lock:
            while self._connections:
                self._connections.pop().close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """All that is done within is done, or nothing; what is read within is of one moment. Nested ones are one."""
        connection = self.connection
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def add(
        self,
        paths: Iterable[str | Path],
        *,
        progress: Progress | None = None,
        root: str | Path | None = None,
        prefix: str = "",
    ) -> Added:
        """Add files and folders, or bring them up to date.

        Files whose content has not changed are not read again; of changed ones only passages that changed are indexed.
        A file with the content of a document whose own file is gone is that document, renamed. Documents of a folder
        given here whose files are gone are removed.

        Args:
            paths: Files and folders.
            progress: Called after each file: how many are done, of how many, and the document's name.
            root: Names are relative to it; otherwise to what holds each of `paths`, so that a folder's name is part of
                them. Where a name is taken by another file, folders further up are put in front.
            prefix: What every name begins with.

        Returns:
            What became of each file.
        """
        given = [paths] if isinstance(paths, str | Path) else paths
        return adding.add(self.connection, self.transaction, given, root, prefix, progress)

    def add_bytes(self, name: str, data: bytes) -> Added:
        """Add one document that is no file here: an upload. One of the same name that was uploaded is replaced.

        Raises:
            UnreadableError: With a sentence that says why it cannot be read.
        """
        return adding.add_bytes(self.connection, self.transaction, name, data)

    def copy(self, other: "Index", name: str) -> None:
        """Take a document over from another index, with its name and its text."""
        document = other.document(name)
        entry = next(each for each in other.documents() if each.name == name)
        with self.transaction() as connection:
            row = connection.execute("SELECT id FROM document WHERE name = ?", (name,)).fetchone()
            store.put(connection, document, entry.sha256, None, row[0] if row else None)

    def remove(self, name: str) -> bool:
        """Remove a document; False where there is none of that name."""
        with self.transaction() as connection:
            row = connection.execute("SELECT id FROM document WHERE name = ?", (name,)).fetchone()
            if row is not None:
                store.forget(connection, row[0])
            return row is not None

    def documents(self) -> list[Entry]:
        """The documents, by name."""
        rows = self.connection.execute(
            "SELECT name, kind, path, sha256, json_array_length(pages), passages, word_count, added, problems "
            "FROM document ORDER BY name"
        )
        values = [(*row[:8], tuple(json.loads(row[8]))) for row in rows]
        return [Entry(*each) for each in values]

    def document(self, name: str) -> Document:
        """A document as it was read.

        Raises:
            ValueError: If there is none of that name.
        """
        found = store.restore(self.connection, name)
        if found is None:
            raise ValueError(f"no document is called {name!r}; `documents()` lists them")
        return found

    def text(self, name: str) -> str:
        """A document's text, to which its quotations' places refer (see `document`)."""
        return self.document(name).text

    def quote(self, name: str, start: int, end: int) -> str | None:
        """A stretch of a document's text, without reading all of it; None where there is no such stretch."""
        return store.stretch(self.connection, name, start, end)

    def search(self, query: str, limit: int = 20, *, documents: Collection[str] | None = None) -> list[Passage]:
        r"""The passages that fit best, by BM25 (k1 = 1.2, b = 0.75).

        Words that say nothing about the subject are left out, unless there are no others. Scores are rounded to six
        digits; passages level on them are in the order of their quotation's SHA-256, then document, then place.

        Args:
            query: Any text: nothing in it is an operator.
            limit: How many at most.
            documents: Only these; the weight of a word is the whole index's all the same.
        """
        with self.transaction(write=False) as connection:
            return search(connection, query, limit, None if documents is None else self._rows(documents))

    def _rows(self, names: Collection[str]) -> list[int]:
        execute = self.connection.execute
        found = [execute("SELECT id FROM document WHERE name = ?", (name,)).fetchone() for name in names]
        return [row[0] for row in found if row is not None]

    def containing(self, term: str) -> list[Passage]:
        """All passages that hold a term, case-folded, or several words in a row, by document and place."""
        phrase = " ".join(terms(term))
        if not phrase:
            return []
        rows = self.connection.execute(
            f'SELECT {store.PASSAGE} JOIN words ON words.rowid = p.id WHERE words MATCH ? ORDER BY d.name, p."start"',
            (f'"{phrase}"',),
        )
        return [Passage(*row) for row in rows]

    def passages(self, name: str | None = None) -> Iterator[Passage]:
        """All passages, or those of one document, by document and place."""
        only, given = ("", ()) if name is None else (" WHERE d.name = ?", (name,))
        for row in self.connection.execute(f'SELECT {store.PASSAGE}{only} ORDER BY d.name, p."start"', given):
            yield Passage(*row)

    def neighbours(self, passage: Passage) -> tuple[str, str]:
        """The texts of the passages before and after one; empty where there is none."""
        found = []
        for sign, order in (("<", "DESC"), (">", "ASC")):
            row = self.connection.execute(
                "SELECT quote FROM passage WHERE document = (SELECT id FROM document WHERE name = ?) "
                f'AND "start" {sign} ? ORDER BY "start" {order} LIMIT 1',
                (passage.document, passage.start),
            ).fetchone()
            found.append(row[0] if row else "")
        return found[0], found[1]

    def count(self, term: str) -> int:
        """How many passages hold a term, case-folded; or, of several words, these in a row."""
        phrase = " ".join(terms(term))
        if not phrase:
            return 0
        found = self.connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (f'"{phrase}"',))
        return int(found.fetchone()[0])

    def vocabulary(self) -> Iterator[tuple[str, int]]:
        """Every word of the documents, case-folded, and how many passages hold it, by word."""
        yield from self.connection.execute("SELECT term, doc FROM vocabulary ORDER BY term")

    def near(self, term: str, limit: int = 5) -> list[Near]:
        """Words of the documents that look like one that may be misspelt.

        Up to two letters wrong, missing, too many or swapped (one for words of up to four letters), by the unrestricted
        Damerau-Levenshtein distance. First those with the fewest; of these first acronyms, then words with the same
        letters, then with the same first letter; then the rarer ones for a short term, the commoner ones for others.
        """
        word = "".join(terms(term))
        if not near.furthest(word):
            return []
        with self.transaction(write=False):
            held = self.corpus_hash()
            if self._words[0] != held:
                self._words = held, [(each, count, near.letters(each)) for each, count in self.vocabulary()]
            found = near.alike(word, self._words[1])

            def plausible(each: tuple[int, str, int]) -> tuple[int, bool, bool, int, str]:
                away, other, count = each
                more = count if len(word) <= _SHORT else -count
                return away, sorted(other) != sorted(word), other[0] != word[0], more, other

            found.sort(key=plausible)
            written = [self._written(*each) for each in found[:_LOOKED_AT]]
        # Stable: the order above holds among acronyms, and among the rest.
        return sorted(written, key=lambda each: (each.distance, not _is_acronym(each.term)))[:limit]

    def _written(self, away: int, word: str, count: int) -> Near:
        row = self.connection.execute(
            f"SELECT {store.PASSAGE} JOIN words ON words.rowid = p.id WHERE words MATCH ? "
            'ORDER BY d.name, p."start" LIMIT 1',
            (f'"{word}"',),
        ).fetchone()
        passage = Passage(*row)
        writings = [passage.quote[start:end] for start, end, each in term_spans(passage.quote) if each == word]
        acronyms = [each for each in writings if _is_acronym(each)]
        return Near((acronyms or writings)[0], count, away, passage)

    def corpus_hash(self) -> str:
        """The SHA-256 of all names and texts: the same for the same documents, in whatever order they were added."""
        rows = self.connection.execute("SELECT name, text_sha256 FROM document ORDER BY name")
        return store.sha256("".join(f"{name}\n{text}\n" for name, text in rows).encode())

    def cache_get(self, key: str) -> str | None:
        """What was kept under a key; None where nothing was."""
        row = self.connection.execute("SELECT value FROM cache WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def cache_put(self, key: str, value: str) -> None:
        """Keep a value under a key."""
        self.connection.execute("INSERT OR REPLACE INTO cache VALUES (?, ?)", (key, value))
