import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from lsdr.genie.index import Index
from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers.read import read
from lsdr.genie.store import sha256

LONG = "\n\n".join(f"Paragraph {k} says that {' '.join(f'word{k}x{j}' for j in range(40))}." for k in range(30))


@pytest.fixture
def index(tmp_path):
    with Index.open(tmp_path / "data" / "index.sqlite") as opened:
        yield opened


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "papers"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Alpha\n\nThe first letter.\n")
    (folder / "b.txt").write_text(LONG)
    (folder / "sub" / "a.md").write_text("Another alpha.")
    return folder


def check(index):
    """The tables and the full-text index agree, and every passage is where it says."""
    connection = index.connection
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")
    for entry in index.documents():
        document = index.document(entry.name)
        passages = list(index.passages(entry.name))
        assert len(passages) == entry.passages
        assert entry.words == len(document.text.split())
        for each in passages:
            assert each.quote == document.text[each.start : each.end]
            assert (each.page, each.line) == document.where(each.start)
    assert (
        connection.execute("SELECT count(*) FROM passage WHERE document NOT IN (SELECT id FROM document)").fetchone()[0]
        == 0
    )


def names(index):
    return [each.name for each in index.documents()]


def test_folders_files_and_names(index, papers, tmp_path):
    (papers / "picture.xyz").write_bytes(b"not read")
    (papers / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    seen = []
    added = index.add([papers, tmp_path / "none.txt"], progress=lambda *each: seen.append(each))
    assert added.new == ("papers/a.md", "papers/b.txt", "papers/sub/a.md")
    assert [each.name for each in added.problems] == ["papers/broken.pdf", "none.txt"]
    assert seen[-1] == (5, 5, "none.txt")
    assert len(seen) == 5
    assert names(index) == list(added.new)
    for name in added.new:
        path = tmp_path / name
        assert index.document(name) == read(name, path)
        assert {each.name: each for each in index.documents()}[name].sha256 == sha256(path.read_bytes())
    check(index)
    assert index.add([papers]).unchanged == added.new
    assert index.add([papers / "sub" / "a.md"]).unchanged == ("papers/sub/a.md",)  # a document keeps its name


def test_names_are_unique(index, papers, tmp_path):
    index.add([papers / "a.md"])
    assert index.add([papers / "sub" / "a.md"]).new == ("sub/a.md",)
    assert index.add([papers / "b.txt"], root=tmp_path).new == ("papers/b.txt",)
    (tmp_path / "a.md").write_text("A third one.")
    assert index.add([tmp_path / "a.md"], prefix="").new == (f"{tmp_path.name}/a.md",)
    check(index)


def test_only_what_changed_is_indexed(index, papers):
    index.add([papers])
    rows = dict(index.connection.execute("SELECT quote, id FROM passage"))
    text = "A new beginning, of enough words to be a passage by itself: " + "more " * 30 + "\n\n"
    (papers / "b.txt").write_text(text + LONG.replace("word7x3", "changed"))
    before = index.corpus_hash()
    added = index.add([papers])
    assert added.changed == ("papers/b.txt",)
    assert len(added.unchanged) == 2
    after = dict(index.connection.execute("SELECT quote, id FROM passage"))
    assert len(after.keys() - rows.keys()) == 2
    assert all(rows[quote] == after[quote] for quote in after.keys() & rows.keys())
    assert index.count("word7x3") == 0
    assert index.count("changed") == 1
    assert index.corpus_hash() != before
    check(index)
    (papers / "b.txt").write_text(LONG)
    index.add([papers])
    assert index.corpus_hash() == before
    check(index)


def test_files_that_are_gone_renamed_or_moved(index, papers, tmp_path):
    index.add([papers])
    rows = list(index.connection.execute("SELECT id FROM passage ORDER BY id"))
    (papers / "b.txt").rename(papers / "c.txt")
    (papers / "sub" / "a.md").unlink()
    added = index.add([papers])
    assert (added.renamed, added.removed, added.new) == (("papers/c.txt",), ("papers/sub/a.md",), ())
    assert names(index) == ["papers/a.md", "papers/c.txt"]
    check(index)
    (tmp_path / "moved").mkdir()
    shutil.move(papers, tmp_path / "moved" / "papers")
    added = index.add([tmp_path / "moved" / "papers"])
    assert added.renamed == ("papers/a.md", "papers/c.txt")
    assert len(rows) - len(list(index.connection.execute("SELECT id FROM passage"))) == 1
    (tmp_path / "moved" / "papers" / "copy.txt").write_text(LONG)  # the other is still there: a second document
    assert index.add([tmp_path / "moved" / "papers"]).new == ("papers/copy.txt",)
    check(index)


def test_what_can_no_longer_be_read_is_no_longer_quoted(index, papers):
    index.add([papers])
    (papers / "a.md").write_bytes(b"")
    added = index.add([papers])
    assert added.removed == ("papers/a.md",)
    assert "empty" in added.problems[0].message
    (papers / "b.txt").unlink()
    assert index.add([papers / "b.txt"]).problems  # a file named that is not there: perhaps by mistake
    assert names(index) == ["papers/b.txt", "papers/sub/a.md"]
    (papers / "cell.ipynb").write_text(
        '{"cells": [{"cell_type": "markdown", "source": ["half \\ud800 one"], "metadata": {}}], "metadata": {},'
        ' "nbformat": 4, "nbformat_minor": 5}'
    )
    index.add([papers / "cell.ipynb"])
    check(index)


def test_uploads(index, papers):
    index.add([papers / "a.md"])
    assert index.add_bytes("a.md", b"An upload.").new == ("uploads/a.md",)
    assert index.add_bytes("a.md", b"An upload.").unchanged == ("uploads/a.md",)
    assert index.add_bytes("a.md", b"Another upload.").changed == ("uploads/a.md",)
    with pytest.raises(UnreadableError, match="kind"):
        index.add_bytes("a.exe", b"x")
    assert index.add([papers]).removed == ()
    assert index.remove("uploads/a.md")
    assert not index.remove("uploads/a.md")
    assert index.count("upload") == 0
    with pytest.raises(ValueError, match=r"uploads/a\.md"):
        index.text("uploads/a.md")
    check(index)


def test_stretches_neighbours_and_counts(index, papers):
    index.add([papers])
    text = index.text("papers/b.txt")
    assert text == LONG
    for start, end in [(0, 10), (0, len(text)), (200, 900), (len(text) - 1, len(text)), (5, 5)]:
        assert index.quote("papers/b.txt", start, end) == text[start:end]
    assert index.quote("papers/b.txt", 0, len(text) + 1) is None
    assert index.quote("papers/b.txt", 9, 3) is index.quote("none", 0, 1) is None
    short = index.text("papers/a.md")  # ends with a newline that is in no passage
    assert index.quote("papers/a.md", 12, len(short)) == short[12:]
    first, second, *_ = index.passages("papers/b.txt")
    assert index.neighbours(first) == ("", second.quote)
    assert index.neighbours(second)[0] == first.quote
    assert (index.count("ALPHA"), index.count("first letter"), index.count("letter first")) == (2, 1, 0)
    assert [each.document for each in index.containing("Alpha")] == ["papers/a.md", "papers/sub/a.md"]
    assert dict(index.vocabulary())["alpha"] == 2


def test_cache(index):
    assert index.cache_get("key") is None
    index.cache_put("key", "one")
    index.cache_put("key", "two")
    assert index.cache_get("key") == "two"


def test_other_files_are_refused_and_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, " * 100)
    with pytest.raises(ValueError, match="not an index"):
        Index.open(text)
    assert text.read_text().startswith("not a database")
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine(x)")
    connection.close()
    with pytest.raises(ValueError, match="not the Genie's"):
        Index.open(other)
    Index.open(tmp_path / "new.sqlite").close()
    connection = sqlite3.connect(tmp_path / "new.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ValueError, match="version 99"):
        Index.open(tmp_path / "new.sqlite")


def test_a_failure_within_a_document_leaves_the_old_one(index, papers, monkeypatch):
    index.add([papers])
    before = index.corpus_hash()
    (papers / "b.txt").write_text("Replaced.")
    monkeypatch.setattr("lsdr.genie.store._forget_words", lambda *_: Path("/nowhere/at/all").stat())
    assert index.add([papers]).problems
    monkeypatch.undo()
    assert index.corpus_hash() == before
    check(index)


def test_threads(index):
    def upload(which):
        for k in range(5):
            index.add_bytes(f"{which}-{k}.txt", f"Thread {which} wrote text {k}.".encode())
            assert index.count(f"{which}") >= k

    threads = [threading.Thread(target=upload, args=(which,)) for which in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(index.documents()) == 15
    check(index)
    index.close()
    with pytest.raises(ValueError, match="closed"):
        index.documents()
