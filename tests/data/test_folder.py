import os
import pickle
import sys

import numpy as np
import pytest

from lsdr.data.folder import FolderReader
from lsdr.data.load import load_images
from lsdr.data.problem import BadImageError

_opened = []


def _audit(event, arguments):
    if event == "open" and _opened and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


sys.addaudithook(_audit)


def names_of(reader):
    return [reader.name(index) for index in range(len(reader))]


def test_order_is_sorted_whatever_order_they_were_made_in(image_folder):
    names = ["b/2.png", "a.png", "b/10.PNG", "c/deep/x.jpeg", "b/1.webp", "B.tif"]
    expected = ["B.tif", "a.png", "b/1.webp", "b/10.PNG", "b/2.png", "c/deep/x.jpeg"]
    assert names_of(FolderReader(image_folder(names, folder="one"))) == expected
    assert names_of(FolderReader(image_folder(names[::-1], folder="two"))) == expected


def test_read_gives_the_named_file(image_folder):
    root = image_folder(["b/2.png", "a.png", "b/1.png"])
    reader = FolderReader(root)
    for index in range(3):
        assert reader.read(index) == (root / reader.name(index)).read_bytes()


def test_classes_are_the_subfolders(image_folder):
    dataset = load_images(image_folder(["dog/1.png", "cat/1.png", "cat/2.png", "emu/1.png"]))
    assert (dataset.classes, dataset.class_names) == (3, ("cat", "dog", "emu"))
    batch = dataset.__getitems__([3, 0, 2])
    assert batch["label"].tolist() == [2, 0, 1]
    assert [dataset.name(index) for index in (3, 0, 2)] == ["emu/1.png", "cat/1.png", "dog/1.png"]


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.png", "dog/1.png", "1.png"],
        ["cat/1.png", "cat/2.png"],
        ["cat/1.png", "dog/old/1.png"],
        ["train/1.png", "test/1.png"],
    ],
    ids=["an image beside the subfolders", "one subfolder", "deeper", "splits"],
)
def test_no_classes(image_folder, names):
    dataset = load_images(image_folder(names))
    assert dataset.classes is None
    assert "label" not in dataset.__getitems__([0])


def test_other_files_are_counted_and_left_out(image_folder):
    root = image_folder(["a.png", "b.png"])
    for name in ("notes.txt", "labels.csv", "._a.png", "png", ".hidden.png"):
        (root / name).write_text("x")
    (root / ".cache").mkdir()
    (root / ".cache" / "c.png").write_text("x")
    (root / "folder.png").mkdir()
    dataset = load_images(root)
    assert len(dataset) == 2
    [record] = dataset.problem_summary()
    assert (record["kind"], record["count"]) == ("ignored", 5)
    assert len(record["examples"]) == 5


def test_links_that_go_round(image_folder):
    root = image_folder(["a/1.png", "b/1.png"])
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "side").symlink_to(root / "a")
    (root / "self.png").symlink_to(root / "self.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "linked.png").symlink_to(root / "a" / "1.png")
    reader = FolderReader(root)
    assert names_of(reader) == ["linked.png", "a/1.png", "b/1.png"]
    assert reader.problems.counts == {"unreadable": 2, "repeated_folder": 2}


def test_unicode_names(image_folder):
    names = ["größe/ünï.png", "größe/画像 😀.png", "zwei worte/neue\nzeile.png"]
    reader = FolderReader(image_folder(names))
    assert names_of(reader) == names
    assert all(reader.read(index) for index in range(3))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_names_that_are_no_text(image_folder):
    root = image_folder(["a.png"])
    (root / "a.png").rename(root / os.fsdecode(b"\xff\xfe.png"))
    reader = FolderReader(root)
    assert reader.name(0) == "\\xff\\xfe.png"
    assert reader.name(0).encode("utf-8")
    assert reader.read(0)


def test_file_that_vanishes_is_named(image_folder):
    root = image_folder(["a.png", "b.png"])
    reader = FolderReader(root)
    (root / "b.png").unlink()
    with pytest.raises(BadImageError) as caught:
        reader.read(1)
    assert caught.value.kind == "unreadable"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(image_folder):
    root = image_folder(["a.png", "b.png", "c.png", "locked/d.png"])
    (root / "b.png").chmod(0)
    (root / "locked").chmod(0)
    try:
        dataset = load_images(root)
        assert dataset.__getitems__([1])["index"].tolist() == [2]
        kinds = {record["kind"]: record["examples"] for record in dataset.problem_summary()}
        assert kinds == {"unreadable_folder": ["locked"], "unreadable": ["b.png"]}
    finally:
        (root / "locked").chmod(0o755)


def test_indexing_many_files_opens_none_and_looks_at_none(tmp_path, encode, monkeypatch):
    for folder in range(20):
        (tmp_path / f"{folder:02}").mkdir()
        for number in range(1000):
            os.close(os.open(tmp_path / f"{folder:02}" / f"{number:04}.png", os.O_CREAT | os.O_WRONLY))
    looked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: (looked.append(path), stat(path, **options))[1])
    _opened.append("start")
    try:
        reader = FolderReader(tmp_path)
        assert [name for name in _opened if str(name).endswith(".png")] == []
    finally:
        _opened.clear()
    assert len(reader) == 20_000
    assert len([path for path in looked if str(path).startswith(str(tmp_path))]) == 21
    assert (reader.name(0), reader.name(12_345), reader.name(19_999)) == ("00/0000.png", "12/0345.png", "19/0999.png")
    assert reader.problems.counts == {}
    # Some 9 bytes for a name and 8 for its place: what a million files cost in every worker.
    assert len(pickle.dumps(reader)) < 20_000 * 30


def test_loading_opens_only_a_few_files(image_folder):
    root = image_folder([f"{number:03}.png" for number in range(300)])
    _opened.append("start")
    try:
        load_images(root)
        opened = [name for name in _opened if str(name).endswith(".png")]
    finally:
        _opened.clear()
    assert 1 <= len(opened) <= 16


def test_pickled_reader_reads_the_same(image_folder):
    reader = FolderReader(image_folder(["b/1.png", "a/2.png", "a/3.png"]))
    copy = pickle.loads(pickle.dumps(reader))
    assert names_of(copy) == names_of(reader)
    assert [copy.read(index) for index in range(3)] == [reader.read(index) for index in range(3)]
    assert [copy.label(index) for index in range(3)] == [0, 0, 1]


def test_pixels_arrive_unchanged(image_folder, pixels):
    dataset = load_images(image_folder(["a.png", "b.png"], height=6, width=9))
    batch = dataset.__getitems__([1, 0])
    assert dataset.shape == (3, 6, 9)
    assert np.array_equal(batch["image"][0], pixels(1, 6, 9).transpose(2, 0, 1))
    assert np.array_equal(batch["image"][1], pixels(0, 6, 9).transpose(2, 0, 1))
