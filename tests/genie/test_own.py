import pytest

from lsdr.genie import own
from lsdr.genie.index import Index


@pytest.fixture
def documentation(tmp_path, monkeypatch):
    folder = tmp_path / "docs"
    (folder / "evidence").mkdir(parents=True)
    (folder / "concepts.md").write_text("# Concepts\n\nA spectrum is what it is.")
    (folder / "evidence" / "gan.md").write_text("Measured.")
    monkeypatch.setattr(own, "own_documents", lambda: folder)
    return folder


def names(index):
    with index:
        return [each.name for each in index.documents()]


def test_which_documents_are_asked(tmp_path, documentation):
    path, ours = tmp_path / "mine.sqlite", ["lsdr/concepts.md", "lsdr/evidence/gan.md"]
    assert names(own.open_default(path)) == names(own.open_own(path)) == ours
    assert names(own.open_default(path, documents="mine")) == []
    with Index.open(path) as mine:
        mine.add_bytes("notes.md", b"Mine.")
    assert names(own.open_default(path)) == names(own.open_default(path, documents="mine")) == ["notes.md"]
    assert names(own.open_default(path, documents="lsdr")) == ours
    assert names(own.open_default(path, documents="all")) == [*ours, "notes.md"]
    (documentation / "concepts.md").unlink()
    with Index.open(path) as mine:
        mine.add_bytes("notes.md", b"Changed.")
    with own.open_default(path, documents="all") as both:
        assert [each.name for each in both.documents()] == ["lsdr/evidence/gan.md", "notes.md"]
        assert both.text("notes.md") == "Changed."


def test_the_documentation_is_there():
    assert (own.own_documents() / "concepts.md").is_file()


def test_the_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert own.default_path() == tmp_path / "lsdr" / "genie.sqlite"
