import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from lsdr.data.load import load_images

datasets = pytest.importorskip("datasets")


@pytest.fixture
def saved(tmp_path, encode):
    """saved(rows, **columns) -> a dataset of images as it is in memory."""

    def make(images=5, **columns):
        if isinstance(images, int):
            images = [encode(number) for number in range(images)]
        features = {"picture": datasets.Image()} | {name: feature for name, (feature, _) in columns.items()}
        rows = {"picture": [None if each is None else {"bytes": each, "path": None} for each in images]}
        rows |= {name: values for name, (_, values) in columns.items()}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    return make


def test_saved_dataset(saved, tmp_path, pixels):
    labels = (datasets.ClassLabel(names=["ant", "bee", "cow"]), [2, 0, 0, 2, 2])
    saved(kind=labels).save_to_disk(tmp_path / "saved")
    dataset = load_images(tmp_path / "saved")
    assert (len(dataset), dataset.shape, dataset.class_names) == (5, (3, 8, 8), ("ant", "bee", "cow"))
    batch = dataset.__getitems__([4, 1])
    assert batch["label"].tolist() == [2, 0]
    assert np.array_equal(batch["image"][0], pixels(4, 8, 8).transpose(2, 0, 1))
    assert dataset.name(4).endswith("saved#4")


def test_selected_and_shuffled_rows_keep_their_labels(saved, tmp_path, pixels):
    data = saved(label=(datasets.Value("string"), ["e", "d", "c", "b", "a"])).select([3, 0, 4])
    data.save_to_disk(tmp_path / "saved")
    dataset = load_images(tmp_path / "saved")
    assert dataset.class_names == ("a", "b", "e")
    batch = dataset.__getitems__([0, 1, 2])
    assert batch["label"].tolist() == [1, 2, 0]
    assert np.array_equal(batch["image"][0], pixels(3, 8, 8).transpose(2, 0, 1))


def test_splits(saved, tmp_path):
    splits = {"test": saved(2), "train": saved(4)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "both")
    assert len(load_images(tmp_path / "both")) == 4
    assert len(load_images(tmp_path / "both" / "test")) == 2
    datasets.DatasetDict({"all": saved(3)}).save_to_disk(tmp_path / "one")
    assert len(load_images(tmp_path / "one")) == 3
    datasets.DatasetDict({"a": saved(3), "b": saved(3)}).save_to_disk(tmp_path / "neither")
    with pytest.raises(ValueError, match=r"splits a, b and none called train; name its folder, such as .*neither/a"):
        load_images(tmp_path / "neither")


def test_rows_without_a_label(saved, tmp_path):
    labels = (datasets.ClassLabel(names=["x", "y"]), [0, 1, None, -1, 1])
    saved(label=labels).save_to_disk(tmp_path / "saved")
    dataset = load_images(tmp_path / "saved")
    batch = dataset.__getitems__(range(5))
    assert (batch["index"].tolist(), batch["label"].tolist()) == ([0, 1, 4, 4, 4], [0, 1, 1, 1, 1])
    assert dataset.problem_summary()[0]["kind"] == "no_label"


def test_bad_rows_are_named(saved, encode, tmp_path):
    images = [encode(0), None, encode(2)[:60], b"text", encode(4), encode(5), encode(6)]
    saved(images).save_to_disk(tmp_path / "saved")
    dataset = load_images(tmp_path / "saved")
    assert dataset.__getitems__(range(7))["index"].tolist() == [0, 4, 4, 4, 4, 5, 6]
    kinds = {record["kind"]: record["examples"][0][-2:] for record in dataset.problem_summary()}
    assert kinds == {"null": "#1", "damaged": "#2", "not_an_image": "#3"}


def test_images_kept_as_paths(tmp_path, image_folder):
    root = image_folder(["0.png", "1.png", "2.png"])
    paths = [str(root / f"{number}.png") for number in range(3)]
    data = datasets.Dataset.from_dict({"image": paths}, features=datasets.Features(image=datasets.Image()))
    from lsdr.data.huggingface import HuggingFaceReader

    reader = HuggingFaceReader(data, "paths")
    assert reader.read(1) == (root / "1.png").read_bytes()
    (root / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png: No such file"):
        reader.read(1)


def test_no_image_column(tmp_path):
    datasets.Dataset.from_dict({"x": [1, 2]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="no column of type Image; its columns are"):
        load_images(tmp_path / "saved")


def test_damaged_folder(saved, tmp_path):
    saved().save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as a Hugging Face dataset"):
        load_images(tmp_path / "saved")


def test_by_name(tmp_path, monkeypatch, encode):
    # A repository as the Hub holds it, read from disk because tests have no network.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split, count in (("train", 3), ("test", 2)):
        rows = {"image": [Image.open(io.BytesIO(encode(number))) for number in range(count)]}
        (tmp_path / "repository").mkdir(exist_ok=True)
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(image=datasets.Image()))
        data.to_parquet(tmp_path / "repository" / f"{split}-00000-of-00001.parquet")
    assert len(load_images(f"hf:{tmp_path / 'repository'}")) == 3
    assert len(load_images(f"hf:{tmp_path / 'repository'}:test")) == 2
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_images(f"hf:{tmp_path / 'repository'}:dev")


def test_name_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the Hugging Face dataset someone/something cannot be loaded"):
        load_images("hf:someone/something")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "lsdr\[datasets\]"'):
        load_images("hf:someone/something")


def test_pickle(saved, tmp_path):
    saved().save_to_disk(tmp_path / "saved")
    reader = load_images(tmp_path / "saved").reader
    copy = pickle.loads(pickle.dumps(reader))
    assert [copy.read(index) for index in range(5)] == [reader.read(index) for index in range(5)]
