"""Which files are read, and what is said of those that are not."""

import subprocess
import sys

import pytest

from lsdr.genie.problem import UnreadableError
from lsdr.genie.readers import read as module
from lsdr.genie.readers.read import expand, read


def test_folders_are_read_in_the_order_of_names_without_hidden_and_unknown_files(tmp_path):
    for name in ("b.txt", "a.md", ".hidden.txt", "c.png", "sub/d.TXT", ".git/e.txt", "sub/.f/g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    names = [path.relative_to(tmp_path).as_posix() for path in expand([tmp_path])]
    assert names == ["a.md", "b.txt", "sub/d.TXT"]
    assert expand([tmp_path / "b.txt", tmp_path])[0] == tmp_path / "b.txt"
    assert len(expand([tmp_path / "b.txt", tmp_path])) == 3


def test_links_out_of_the_folder_are_refused_and_those_within_are_read(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir(), outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (folder / "own.txt").write_text("own")
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    (folder / "within.txt").symlink_to(folder / "own.txt")
    (folder / "away").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    refused = []
    assert [path.name for path in expand([folder], refused)] == ["own.txt", "within.txt"]
    assert sorted(each.name for each in refused) == [str(folder / "away"), str(folder / "link.txt")]
    assert "link out of" in refused[0].message


def test_a_path_that_is_not_there_is_kept_for_reading_to_say_so(tmp_path):
    (missing,) = expand([tmp_path / "none.txt"])
    with pytest.raises(UnreadableError, match="No such file"):
        read(missing)


def test_a_name_may_differ_from_the_path(tmp_path):
    path = tmp_path / "upload-1"
    path.write_bytes(b"words")
    assert read("notes/a.txt", path).name == "notes/a.txt"
    assert read("notes/a.txt", path).text == "words"


def test_folders_and_unknown_kinds_are_refused(tmp_path):
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(UnreadableError, match="is not a file"):
        read(tmp_path / "x.txt")
    with pytest.raises(UnreadableError, match=r"of a kind that is not read; these are: \.txt"):
        read("a.exe", b"x")


def test_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 11)
    for source in (path, b"x" * 11):
        with pytest.raises(UnreadableError, match="too large: 11 bytes, of at most 10"):
            read("a.txt", source)
    assert read("a.txt", b"x" * 10).text == "x" * 10


def test_libraries_load_only_for_the_files_that_need_them():
    code = (
        "import sys; from lsdr.genie.readers.read import read; import lsdr.genie.pdf_page; read('a.md', b'words');"
        "print([m for m in ('pypdfium2', 'docx', 'selectolax', 'PIL', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
