import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lsdr.data import parquet
from lsdr.data.load import load_images
from lsdr.data.parquet import ParquetReader

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def shard(tmp_path, encode):
    """shard(name, images, columns, metadata) -> a Parquet file of them, two rows a group."""

    def make(name="data.parquet", images=6, first=0, struct=True, metadata=None, **columns):
        if isinstance(images, int):
            images = [encode(first + number) for number in range(images)]
        if struct:
            column = pa.array(
                [None if each is None else {"bytes": each, "path": None} for each in images],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            )
        else:
            column = pa.array(images, pa.binary())
        table = pa.table({"id": pa.array(range(len(images))), "picture": column} | columns)
        if metadata is not None:
            table = table.replace_schema_metadata({"huggingface": metadata})
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path, row_group_size=2)
        return path

    return make


@pytest.mark.parametrize("struct", [True, False], ids=["struct", "bytes"])
def test_images_and_labels(shard, struct, pixels):
    dataset = load_images(shard(struct=struct, Label=pa.array([7, 3, 3, 7, 9, 7])))
    assert (len(dataset), dataset.classes, dataset.class_names) == (6, 3, ("3", "7", "9"))
    batch = dataset.__getitems__([5, 0, 2])
    assert batch["label"].tolist() == [1, 1, 0]
    for image, number in zip(batch["image"], [5, 0, 2], strict=True):
        assert np.array_equal(image, pixels(number, 8, 8).transpose(2, 0, 1))
    assert dataset.name(5) == "data.parquet#5"


def test_the_image_column_is_the_one_with_images(shard):
    hashes = pa.array([b"hash%d" % number for number in range(6)])
    path = shard(digest=hashes, audio=pa.array([{"bytes": b"RIFF"}] * 6))
    table = pq.read_table(path).select(["audio", "digest", "picture", "id"])
    pq.write_table(table, path)
    assert load_images(path).__getitems__(range(6))["image"].shape == (6, 3, 8, 8)


@pytest.mark.parametrize("dictionary", [False, True])
def test_string_labels(shard, dictionary):
    labels = pa.array(["dog", "cat", "cat", "emu", "dog", "cat"])
    dataset = load_images(shard(category=labels.dictionary_encode() if dictionary else labels))
    assert dataset.class_names == ("cat", "dog", "emu")
    assert dataset.__getitems__(range(6))["label"].tolist() == [1, 0, 0, 2, 1, 0]


def test_hugging_face_metadata_names_the_classes(shard):
    features = {"kind": {"_type": "ClassLabel", "names": ["ant", "bee", "cow"]}, "picture": {"_type": "Image"}}
    metadata = json.dumps({"info": {"features": features}})
    dataset = load_images(shard(kind=pa.array([2, 0, 0, 2, 0, 0]), label=pa.array(range(6)), metadata=metadata))
    assert dataset.class_names == ("ant", "bee", "cow")
    assert dataset.__getitems__(range(6))["label"].tolist() == [2, 0, 0, 2, 0, 0]


@pytest.mark.parametrize("metadata", ["no json", "[]", '{"info": {"features": {"label": null}}}'])
def test_broken_metadata_is_only_a_hint(shard, metadata):
    assert load_images(shard(label=pa.array([0, 1] * 3), metadata=metadata)).classes == 2


def test_no_labels(shard):
    assert load_images(shard()).classes is None
    assert load_images(shard(label=pa.array([1] * 6))).classes is None
    assert load_images(shard(label=pa.array([0.5] * 6))).classes is None


def test_rows_without_image_or_label_are_problems(shard, encode):
    images = [encode(0), None, encode(2), b"", encode(4), encode(5), encode(6)]
    dataset = load_images(shard(images=images, label=pa.array([0, 1, 0, 1, None, 1, 0])))
    batch = dataset.__getitems__(range(7))
    assert batch["index"].tolist() == [0, 2, 2, 5, 5, 5, 6]
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1, 0]
    kinds = {record["kind"]: record["examples"] for record in dataset.problem_summary()}
    assert kinds == {"null": ["data.parquet#1"], "empty": ["data.parquet#3"], "no_label": ["data.parquet#4"]}
    with pytest.raises(ValueError, match=r"1 null: data\.parquet#1"):
        load_images(shard(images=images), on_bad="refuse")


def test_shards_in_the_order_of_their_names(shard, pixels):
    shard("shards/part-2.parquet", images=3, first=20, label=pa.array(["b", "a", "b"]))
    folder = shard("shards/part-1.parquet", images=4, first=10, label=pa.array(["c", "a", "c", "c"])).parent
    dataset = load_images(folder)
    assert len(dataset) == 7
    batch = dataset.__getitems__([4, 0, 6])
    for image, number in zip(batch["image"], [20, 10, 22], strict=True):
        assert np.array_equal(image, pixels(number, 8, 8).transpose(2, 0, 1))
    assert dataset.class_names == ("a", "b", "c")
    assert batch["label"].tolist() == [1, 2, 1]
    assert [dataset.name(index) for index in (3, 4)] == ["part-1.parquet#3", "part-2.parquet#0"]


def test_splits_are_not_mixed(shard):
    shard("hub/train-00000-of-00001.parquet", images=4)
    folder = shard("hub/test-00000-of-00001.parquet", images=3).parent
    with pytest.raises(ValueError, match=r"the splits test, train; choose one: .*hub/train\*\.parquet"):
        load_images(folder)
    assert len(load_images(folder / "train*.parquet")) == 4
    with pytest.raises(ValueError, match="there is no"):
        load_images(folder / "dev*.parquet")


def test_truncated_file(shard):
    path = shard()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"data\.parquet cannot be used as Parquet"):
        load_images(path)


def test_truncated_shard_is_left_out_or_refused(shard):
    shard("shards/a.parquet", images=3)
    path = shard("shards/b.parquet", images=3)
    shard("shards/c.parquet", images=2)
    path.write_bytes(path.read_bytes()[:300])
    dataset = load_images(path.parent)
    assert len(dataset) == 5
    records = {record["kind"]: record["examples"] for record in dataset.problem_summary()}
    assert records == {"unreadable_shard": ["b.parquet"]}
    with pytest.raises(ValueError, match=r"b\.parquet cannot be used"):
        load_images(path.parent, on_bad="refuse")


def test_shard_without_the_column_is_left_out(shard, tmp_path):
    folder = shard("shards/a.parquet", images=3, label=pa.array([0, 1, 0])).parent
    pq.write_table(pa.table({"x": [1]}), folder / "b.parquet")
    shard("shards/c.parquet", images=2)
    shard("shards/d.parquet", images=2, label=pa.array(["x", "y"]))
    dataset = load_images(folder)
    assert len(dataset) == 3
    assert dataset.problem_summary()[0]["examples"] == ["b.parquet", "c.parquet", "d.parquet"]


def test_damage_inside_a_row_group_is_met_without_a_traceback(shard):
    path = shard(images=12)
    metadata = pq.ParquetFile(path).metadata
    columns = [metadata.row_group(3).column(each) for each in range(metadata.num_columns)]
    place = next(each for each in columns if each.path_in_schema == "picture.bytes")
    raw = bytearray(path.read_bytes())
    start = place.dictionary_page_offset or place.data_page_offset
    raw[start : start + place.total_compressed_size] = bytes(place.total_compressed_size)
    path.write_bytes(raw)
    dataset = load_images(path)
    assert dataset.__getitems__(range(12))["index"].tolist() == [0, 1, 2, 3, 4, 5, 8, 8, 8, 9, 10, 11]
    assert dataset.problem_summary() == [
        {"kind": "unreadable", "count": 2, "examples": ["data.parquet#6", "data.parquet#7"]}
    ]


@pytest.mark.parametrize("columns", [{"x": [1, 2]}, {"x": [b"abc", None]}, {"x": [{"bytes": b"abc"}]}])
def test_no_image_column(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column of encoded images .* its columns are x \("):
        load_images(tmp_path / "a.parquet")


def test_no_shard_to_read(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no Parquet file of images that can be read: a\.parquet: "):
        load_images(tmp_path)


def test_huge_row_groups_are_refused(shard, monkeypatch):
    monkeypatch.setattr(parquet, "_LARGEST_ROW_GROUP", 100)
    with pytest.raises(ValueError, match="row_group_size=1000"):
        load_images(shard())


def test_memory_is_that_of_a_few_row_groups(shard, monkeypatch):
    path = shard(images=40)
    reader = ParquetReader([path], "data")
    size = reader.read(0) and reader._kept[0].nbytes
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 3 * size)
    expected = [reader.read(index) for index in range(40)]
    assert len(reader._kept) <= 3
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    assert [reader.read(index) for index in order] == [expected[index] for index in order]
    assert len(reader._kept) <= 3


def test_a_batch_reads_each_row_group_once(shard, monkeypatch):
    dataset = load_images(shard(images=40))
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 0)
    dataset.reader._kept.clear()
    reads = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **options: (reads.append(i), read(self, i, **options))[1]
    )
    dataset.__getitems__(torch.randperm(40, generator=torch.Generator().manual_seed(0)))
    assert reads == list(range(20))


def test_pickle(shard):
    reader = ParquetReader([shard(label=pa.array([0, 1] * 3))], "data")
    expected = [reader.read(index) for index in range(6)]
    raw = pickle.dumps(reader)
    assert len(raw) < 3000
    copy = pickle.loads(raw)
    assert [copy.read(index) for index in range(6)] == expected
    assert [copy.label(index) for index in range(6)] == [0, 1] * 3
