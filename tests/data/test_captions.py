import csv
import json
import os
import pickle
import unicodedata

import pytest

from lsdr.data.captions import load_captioned
from lsdr.data.metadata import CAPTION_COLUMNS, as_caption, find_caption_column


def captions_of(source, **options):
    images = load_captioned(source, **options)
    return {images.name(index): images.caption(index) for index in range(len(images))}


def counts(images):
    return {each["kind"]: each["count"] for each in images.problems.summary()}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_text_files_beside_the_images(image_folder, tmp_path):
    root = image_folder(["a.png", "b/c.jpg", "b/d.v2.png", "e.png", "f.png", "g.png"])
    (root / "a.txt").write_text("  a red\n flower\t by day \n", encoding="utf-8")
    (root / "b/c.txt").write_text("ein grünes Haus", encoding="utf-8")
    (root / "b/d.v2.caption").write_text("other suffix", encoding="utf-8")
    (root / "e.txt").write_text(" \n", encoding="utf-8")
    (root / "g.txt").write_text("\ufeffmarked", encoding="utf-8")
    assert captions_of(root) == {
        "a.png": "a red flower by day",
        "e.png": "",
        "f.png": None,
        "g.png": "marked",
        "b/c.jpg": "ein grünes Haus",
        "b/d.v2.png": "other suffix",
    }


def test_images_of_one_stem_share_a_text_file(image_folder):
    root = image_folder(["a.jpg", "a.png"])
    (root / "a.txt").write_bytes(b"\xff")
    (root / "other.md").write_text("x")
    images = load_captioned(root)
    assert counts(images) == {"unreadable_caption": 1, "ignored": 1}
    (root / "a.txt").write_text("both")
    assert captions_of(root) == {"a.jpg": "both", "a.png": "both"}


def test_read_gives_the_image_of_the_caption(image_folder, encode):
    root = image_folder([f"{number}.png" for number in range(12)])
    for number in range(12):
        (root / f"{number}.txt").write_text(f"picture {number}")
    images = load_captioned(root)
    assert len(images) == 12
    for index in range(12):
        number = int(images.name(index).removesuffix(".png"))
        assert images.caption(index) == f"picture {number}"
        assert images.read(index) == encode(number)
    again = pickle.loads(pickle.dumps(images))
    assert (again.caption(3), again.read(3), again.title) == (images.caption(3), images.read(3), str(root))


def test_encodings_of_text_files(image_folder):
    root = image_folder(["a.png", "b.png", "c.png", "d.png"])
    (root / "a.txt").write_bytes("grün".encode("utf-16"))
    (root / "b.txt").write_bytes("grün".encode("latin-1"))
    (root / "c.txt").write_bytes(b"x" * (2**20 + 1))
    (root / "d.txt").mkdir()
    images = load_captioned(root)
    assert [images.caption(index) for index in range(4)] == ["grün", None, None, None]
    assert counts(images)["unreadable_caption"] == 3
    messages = [each.message for each in images.problems.listed if each.kind == "unreadable_caption"]
    assert "save it as UTF-8" in messages[0]
    assert "larger than 1 MB" in messages[1]


def test_what_was_read_as_captions_is_not_ignored(image_folder):
    root = image_folder([f"{number}.png" for number in range(8)])
    for number in range(8):
        (root / f"{number}.txt").write_text("a")
    assert counts(load_captioned(root)) == {}
    (root / "movie.mp4").write_bytes(b"")
    assert counts(load_captioned(root)) == {"ignored": 1}
    (root / "0.txt").unlink()
    write_rows(root / "metadata.jsonl", [{"file_name": "0.png", "text": "b"}])
    assert counts(load_captioned(root)) == {"ignored": 1}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata(image_folder, kind):
    root = image_folder(["a.png", "sub/b.png", "sub/c.png", "d.png", "e.png"])
    rows = [
        {"file_name": "sub/b.png", "size": 3, "text": 'with, commas and "quotes"'},
        {"file_name": "./a.png", "size": 1, "text": "über"},
        {"file_name": "sub\\c.png", "size": 1, "text": "a Windows path"},
        {"file_name": "gone.png", "size": 1, "text": "x"},
        {"file_name": "d.png", "size": 1, "text": None},
    ]
    (root / "e.txt").write_text("from its own file")
    (root / "a.txt").write_text("not taken: the table says otherwise")
    if kind == "jsonl":
        write_rows(root / "metadata.jsonl", rows)
    else:
        with (root / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    expected = {"a.png": "über", "d.png": None if kind == "jsonl" else "", "e.png": "from its own file"}
    expected |= {"sub/b.png": 'with, commas and "quotes"', "sub/c.png": "a Windows path"}
    assert captions_of(root) == expected
    images = load_captioned(root)
    assert [each.name for each in images.problems.listed if each.kind == "no_image"] == ["gone.png"]


def test_metadata_of_subfolders_names_files_in_them(image_folder):
    root = image_folder(["train/a.png", "test/a.png", "train/deep/b.png"])
    write_rows(root / "train/metadata.jsonl", [{"file_name": "a.png", "text": "one"}])
    write_rows(root / "test/metadata.jsonl", [{"file_name": "a.png", "text": "two"}])
    write_rows(root / "metadata.jsonl", [{"file_name": "train/deep/b.png", "text": "three"}])
    assert captions_of(root) == {"train/a.png": "one", "test/a.png": "two", "train/deep/b.png": "three"}
    write_rows(root / "metadata.jsonl", [{"file_name": "train/a.png", "text": "another"}])
    with pytest.raises(ValueError, match=r"train/a\.png has another caption in a folder above"):
        load_captioned(root)


def test_names_that_differ_in_unicode_form_only(image_folder):
    root = image_folder([unicodedata.normalize("NFD", "café.png")])
    write_rows(root / "metadata.jsonl", [{"file_name": unicodedata.normalize("NFC", "café.png"), "text": "coffee"}])
    assert list(captions_of(root).values()) == ["coffee"]


@pytest.mark.parametrize(
    "name", ["../secret.png", "sub/../../secret.png", "/etc/passwd", "C:\\x.png", "..\\secret.png", "\\\\host\\x.png"]
)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_names_that_lead_out_of_the_folder_are_refused(image_folder, tmp_path, encode, name, kind):
    (tmp_path / "secret.png").write_bytes(encode())
    root = image_folder(["a.png"])
    if kind == "jsonl":
        write_rows(root / "metadata.jsonl", [{"file_name": "a.png", "text": "x"}, {"file_name": name, "text": "x"}])
    else:
        (root / "metadata.csv").write_text(f"file_name,text\na.png,x\n{name},x\n")
    with pytest.raises(ValueError, match=r"metadata\.(jsonl, line 2|csv, line 3): .* leads out of the folder"):
        load_captioned(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n{"file_name": ', "line 2, is not JSON"),
        ("metadata.jsonl", "[" * 100000, "line 1, is not JSON"),
        ("metadata.jsonl", "[1, 2]\n", "expected an object with 'file_name'"),
        ("metadata.jsonl", '{"image": "a.png", "text": "x"}\n', "line 1: expected the name of an image in 'file_name'"),
        ("metadata.jsonl", '{"file_name": 3, "text": "x"}\n', "line 1: expected the name of an image"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": 3}\n', "expected a caption as text, came 3"),
        ("metadata.jsonl", '{"file_name": "a.png", "size": 3}\n', "expected captions in a column text, caption"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "\xff"}\n', "is not UTF-8"),
        ("metadata.csv", "image,text\na.png,x\n", r"expected a first line with the columns file_name and text"),
        ("metadata.csv", "", r"expected a first line"),
        ("metadata.csv", "file_name,text\na.png,x,and more\n", r"line 2: more values than columns; put a caption"),
        ("metadata.csv", f"file_name,text\na.png,{'x' * 200000}\n", r"field larger"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "x"}\n{"file_name": "a.png", "text": "y"}\n',
            "line 2: a.png has another caption already",
        ),
    ],
)
def test_damaged_metadata_is_refused_with_its_place(image_folder, name, content, message):
    root = image_folder(["a.png"])
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        load_captioned(root)


def test_two_tables_are_refused(image_folder):
    root = image_folder(["a.png"])
    write_rows(root / "metadata.jsonl", [{"file_name": "a.png", "text": "x"}])
    (root / "metadata.csv").write_text("file_name,text\na.png,x\n")
    with pytest.raises(ValueError, match="keep one"):
        load_captioned(root)


def test_the_column_can_be_chosen(image_folder):
    root = image_folder(["a.png", "b.png"])
    rows = [{"file_name": "a.png", "Caption": "c", "long": "l"}, {"file_name": "b.png", "Caption": "d"}]
    write_rows(root / "metadata.jsonl", rows)
    assert captions_of(root) == {"a.png": "c", "b.png": "d"}
    assert captions_of(root, caption_column="long") == {"a.png": "l", "b.png": None}
    with pytest.raises(ValueError, match="expected captions in the column 'x', found none"):
        load_captioned(root, caption_column="x")
    (root / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match="caption_column='x' names a column, but"):
        load_captioned(root, caption_column="x")


def test_find_caption_column():
    assert find_caption_column(["prompt", "TEXT"]) == "TEXT"
    assert find_caption_column(["file_name", "label"]) is None
    assert all(find_caption_column([name]) == name for name in CAPTION_COLUMNS)


def test_as_caption():
    assert as_caption(["first", "second"], "x") == "first"
    assert as_caption([], "x") is None
    assert as_caption("\u3000a\u00a0b \r\n", "x") == "a b"
    with pytest.raises(ValueError, match="row 3: expected a caption as text, came 7"):
        as_caption([7], "row 3")


def parquet(path, columns, **options):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet(tmp_path, encode):
    for shard in range(2):
        columns = {"caption": [f"shard {shard} row {row}" for row in range(5)]}
        columns["image"] = [{"bytes": encode(10 * shard + row), "path": "x.png"} for row in range(5)]
        columns["caption"][2] = None
        parquet(tmp_path / f"data/train-{shard}.parquet", columns, row_group_size=2)
    for source in (tmp_path / "data", str(tmp_path / "data/train-*.parquet")):
        images = load_captioned(source)
        assert len(images) == 10
        for index in range(10):
            shard, row = divmod(index, 5)
            assert images.caption(index) == (None if row == 2 else f"shard {shard} row {row}")
            assert images.read(index) == encode(10 * shard + row)
    assert len(load_captioned(tmp_path / "data/train-1.parquet")) == 5
    (tmp_path / "data/train-0.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"train-0\.parquet cannot be used"):  # or captions would go to other images
        load_captioned(tmp_path / "data")


def test_parquet_columns(tmp_path, encode):
    images = [encode(0), encode(1)]
    path = parquet(tmp_path / "a.parquet", {"picture": images, "about": ["x", "y"], "captions": [["p", "q"], []]})
    assert list(captions_of(path).values()) == ["p", None]
    assert list(captions_of(path, caption_column="about").values()) == ["x", "y"]
    with pytest.raises(ValueError, match=r"expected a column of captions \('text'\), came picture, about, captions"):
        load_captioned(path, caption_column="text")
    with pytest.raises(ValueError, match="row 0: expected a caption as text, came b"):
        load_captioned(path, caption_column="picture")
    path = parquet(tmp_path / "b.parquet", {"picture": images, "text": [1, 2]})
    with pytest.raises(ValueError, match=r"expected a column of captions \(text, caption"):
        load_captioned(path)


def test_shards_of_several_splits_are_refused(tmp_path, encode):
    for split in ("train", "test"):
        parquet(tmp_path / f"data/{split}-0.parquet", {"image": [encode()], "text": ["x"]})
    with pytest.raises(ValueError, match=r"splits test, train; choose one: .*/train\*\.parquet"):
        load_captioned(tmp_path / "data")


def test_saved_dataset(tmp_path, encode):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": encode(number), "path": None} for number in range(4)]}
    rows |= {"id": list(range(4)), "text": ["zero", "one", None, "three"], "note": list("abcd")}
    features = {"image": datasets.Image(), "id": datasets.Value("int64"), "text": datasets.Value("string")}
    features["note"] = datasets.Value("string")
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    data.select([3, 0, 2]).save_to_disk(tmp_path / "saved")
    images = load_captioned(tmp_path / "saved")
    assert [images.caption(index) for index in range(3)] == ["three", "zero", None]
    assert [images.read(index) for index in range(3)] == [encode(3), encode(0), encode(2)]
    images = load_captioned(tmp_path / "saved", caption_column="note")
    assert [images.caption(index) for index in range(3)] == ["d", "a", "c"]
    with pytest.raises(ValueError, match=r"expected a column of captions \('x'\), came image, id, text, note"):
        load_captioned(tmp_path / "saved", caption_column="x")
    splits = {"test": data.select([0]), "train": data.select([1, 3])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    images = load_captioned(tmp_path / "both")
    assert [images.caption(index) for index in range(2)] == ["one", "three"]
    assert images.read(1) == encode(3)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*nowhere"):
        load_captioned(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        load_captioned(tmp_path / "empty")
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0)
        with pytest.raises(ValueError, match="may not be read"):
            load_captioned(tmp_path / "closed")
