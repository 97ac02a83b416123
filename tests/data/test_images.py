"""What a training loop relies on: shapes, indices, bad images on the way, workers."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from lsdr.data import images
from lsdr.data.load import load_images
from lsdr.data.split import split

NAMES = [f"{number:02}.png" for number in range(12)]


def spoil(root, *numbers):
    for number in numbers:
        path = root / NAMES[number]
        path.write_bytes(path.read_bytes()[:-40])


def spoil_unprobed(root, monkeypatch, *numbers):
    """Spoil files that only a training step will meet."""
    monkeypatch.setattr(images, "_PROBED", 1)
    spoil(root, *numbers)


def test_batch(image_folder, pixels):
    dataset = load_images(image_folder(NAMES))
    batch = dataset.__getitems__([3, 3, 11])
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (3, 3, 8, 8)
    assert batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [3, 3, 11]
    assert np.array_equal(batch["image"][2], pixels(11, 8, 8).transpose(2, 0, 1))
    one = dataset[11]
    assert torch.equal(one["image"], batch["image"][2])
    assert one["index"].item() == 11
    assert torch.equal(dataset.__getitems__(torch.tensor([11]))["image"][0], one["image"])


@pytest.mark.parametrize("index", [-1, 12])
def test_index_out_of_range(image_folder, index):
    with pytest.raises(IndexError, match=f"{index} is not in a data set of 12"):
        load_images(image_folder(NAMES))[index]


def test_decoded_once(image_folder, monkeypatch):
    dataset = load_images(image_folder(NAMES))
    first = dataset.__getitems__(range(12))
    monkeypatch.setattr(dataset.reader, "read", None)
    again = dataset.__getitems__([5, 1])
    assert torch.equal(again["image"], first["image"][[5, 1]])


def test_large_data_is_decoded_by_threads_when_asked_for(image_folder, monkeypatch):
    small = load_images(image_folder(NAMES, height=130, width=130))
    monkeypatch.setattr(images, "_CACHE_BYTES", 0)
    large = load_images(image_folder(NAMES, height=130, width=130))
    order = [7, 2, 2, 11, 0]
    for _ in range(2):
        ours, theirs = large.__getitems__(order), small.__getitems__(order)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert large._kept is None
    assert large._pool is not None
    large.close()
    assert large._pool is None
    assert torch.equal(large[3]["image"], small[3]["image"])


@pytest.mark.parametrize("cache", [0, 2**20])
def test_bad_images_are_replaced_by_the_next_good_one(image_folder, monkeypatch, cache):
    monkeypatch.setattr(images, "_CACHE_BYTES", cache)
    root = image_folder(NAMES)
    spoil_unprobed(root, monkeypatch, 4, 5, 11)
    dataset = load_images(root)
    assert dataset.problems == []
    for _ in range(2):
        batch = dataset.__getitems__([3, 4, 5, 11])
        assert batch["index"].tolist() == [3, 6, 6, 0]
        assert torch.equal(batch["image"], dataset.__getitems__([3, 6, 6, 0])["image"])
    [record] = dataset.problem_summary()
    assert record == {"kind": "damaged", "count": 3, "examples": ["04.png", "05.png", "11.png"]}
    assert [(each.kind, each.name) for each in dataset.problems] == [
        ("damaged", "04.png"),
        ("damaged", "05.png"),
        ("damaged", "11.png"),
    ]


def test_the_label_is_that_of_the_replacement(image_folder):
    root = image_folder(["cat/1.png", "dog/1.png", "dog/2.png"])
    (root / "cat" / "1.png").write_bytes(b"")
    batch = load_images(root).__getitems__([0])
    assert (batch["index"].tolist(), batch["label"].tolist()) == ([1], [1])


def test_replacement_does_not_depend_on_what_was_read_before(image_folder, monkeypatch):
    root = image_folder(NAMES)
    spoil_unprobed(root, monkeypatch, 4, 6)
    fresh, used = load_images(root), load_images(root)
    used.__getitems__(range(12))
    for index in range(12):
        assert fresh[index]["index"].item() == used[index]["index"].item()


@pytest.mark.parametrize("fresh", [True, False])
def test_no_held_out_image_replaces_a_training_image(image_folder, fresh):
    root = image_folder(NAMES)
    spoil(root, 0, 3, 5, 8)
    dataset = load_images(root)
    for seed in range(8):
        dataset = load_images(root) if fresh else dataset
        train, heldout = split(dataset, 4, seed)
        for part in (train, heldout):
            taken = dataset.__getitems__(part)["index"].tolist()
            assert set(taken) <= set(part.tolist())


def test_mostly_bad_data_stops(image_folder):
    root = image_folder(NAMES)
    spoil(root, *range(0, 7))
    with pytest.raises(ValueError, match=r"7 of the \d+ images tried .* cannot be used \(7 damaged: 00.png"):
        load_images(root)


def test_half_bad_data_goes_on(image_folder):
    root = image_folder(NAMES)
    spoil(root, *range(0, 6))
    assert set(load_images(root).__getitems__(range(12))["index"].tolist()) == set(range(6, 12))


def test_mostly_bad_data_met_in_training_stops(image_folder, monkeypatch):
    root = image_folder(NAMES)
    spoil_unprobed(root, monkeypatch, *range(1, 8))
    dataset = load_images(root)
    with pytest.raises(ValueError, match=r"7 of the .* images tried"):
        dataset.__getitems__(range(12))


def test_one_bad_image_first_does_not_stop_a_large_data_set(image_folder, monkeypatch):
    monkeypatch.setattr(images, "_PROBED", 2)
    names = [f"{number:03}.png" for number in range(100)]
    root = image_folder(names, height=2, width=2)
    for name in names[:40]:
        (root / name).write_bytes(b"")
    dataset = load_images(root)
    assert dataset[0]["index"].item() == 40


def test_refused_before_training_and_named(image_folder, monkeypatch):
    root = image_folder(NAMES)
    load_images(root, on_bad="refuse")
    spoil_unprobed(root, monkeypatch, 4, 9)
    (root / "07.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"2 damaged: 04.png, 09.png; 1 not_an_image: 07.png.*on_bad"):
        load_images(root, on_bad="refuse")


def test_refusing_does_not_mind_files_beside_the_images(image_folder):
    root = image_folder(NAMES)
    (root / "README.md").write_text("x")
    assert len(load_images(root, on_bad="refuse")) == 12


def test_refused_when_it_turns_bad_later(image_folder, monkeypatch):
    monkeypatch.setattr(images, "_CACHE_BYTES", 0)
    root = image_folder(NAMES)
    dataset = load_images(root, on_bad="refuse")
    spoil(root, 6)
    with pytest.raises(ValueError, match=r"1 damaged: 06\.png"):
        dataset.__getitems__([5, 6])


def test_different_sizes_need_a_size(image_folder, encode):
    root = image_folder(NAMES)
    (root / "05.png").write_bytes(encode(height=20, width=10))
    with pytest.raises(ValueError, match=r"00.png is 8x8, 05.png is 10x20.*--size 8"):
        load_images(root)
    assert load_images(root, size=8).__getitems__(range(12))["image"].shape == (12, 3, 8, 8)


def test_different_size_met_later_is_a_problem(image_folder, encode, monkeypatch):
    monkeypatch.setattr(images, "_PROBED", 1)
    root = image_folder(NAMES)
    (root / "05.png").write_bytes(encode(height=20, width=10))
    dataset = load_images(root)
    assert dataset[5]["index"].item() == 6
    assert dataset.problem_summary() == [{"kind": "different_size", "count": 1, "examples": ["05.png"]}]


def test_too_small_images(image_folder, encode):
    root = image_folder(NAMES)
    with pytest.raises(ValueError, match=r"smaller than 9x9 \(the first is 00.png, 8x8\).*--size 8"):
        load_images(root, size=9)
    for number in range(6):
        (root / NAMES[number]).write_bytes(encode(height=9, width=30))
    dataset = load_images(root, size=9)
    assert dataset[6]["index"].item() == 0
    assert dataset.problem_summary()[0]["kind"] == "too_small"


def test_channels(image_folder, encode):
    grey = image_folder(NAMES, channels=1)
    assert load_images(grey).shape == (1, 8, 8)
    assert load_images(grey, channels=3).shape == (3, 8, 8)
    three = load_images(grey, channels=3)[0]["image"]
    assert torch.equal(three, three[:1].expand(3, 8, 8))
    (grey / "05.png").write_bytes(encode())
    assert load_images(grey).shape == (3, 8, 8)
    colour = load_images(grey, channels=1)[5]["image"]
    assert np.array_equal(colour[0], Image.open(grey / "05.png").convert("L"))


def test_colour_met_later_in_grey_data_is_a_problem(image_folder, encode, monkeypatch):
    monkeypatch.setattr(images, "_PROBED", 1)
    root = image_folder(NAMES, channels=1)
    (root / "05.png").write_bytes(encode())
    dataset = load_images(root)
    assert dataset[5]["index"].item() == 6
    assert dataset.problem_summary()[0]["kind"] == "colour"
    assert load_images(root, channels=1)[5]["index"].item() == 5


def test_limit_is_spread_over_the_source(image_folder):
    names = [f"{kind}/{number}.png" for kind in "abcd" for number in range(10)]
    root = image_folder(names, height=2, width=2)
    dataset = load_images(root, limit=8)
    assert len(dataset) == 8
    assert dataset.classes == 4
    assert dataset.__getitems__(range(8))["label"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [dataset.name(index) for index in (0, 1, 7)] == ["a/0.png", "a/5.png", "d/5.png"]
    assert len(load_images(root, limit=99)) == 40


def test_one_image(image_folder):
    assert load_images(image_folder(["only.png"]))[0]["image"].shape == (3, 8, 8)


def test_pickle_carries_no_pixels_and_no_threads(image_folder, monkeypatch):
    dataset = load_images(image_folder(NAMES, height=130, width=130))
    expected = dataset.__getitems__(range(12))
    raw = pickle.dumps(dataset)
    assert len(raw) < 20_000
    copy = pickle.loads(raw)
    assert torch.equal(copy.__getitems__(range(12))["image"], expected["image"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("threads", [False, True], ids=["kept", "threads"])
def test_loader_workers_see_the_same(image_folder, monkeypatch, method, threads):
    root = image_folder([f"{kind}/{number}.png" for kind in "ab" for number in range(6)], height=130, width=130)
    (root / "a" / "3.png").write_bytes(b"")
    if threads:
        monkeypatch.setattr(images, "_CACHE_BYTES", 0)
    dataset = load_images(root)
    here = dataset.__getitems__(range(12))  # the threads of this process must not be waited for in a forked one
    loader = DataLoader(
        Subset(dataset, list(range(12))),
        batch_size=5,
        num_workers=1,
        multiprocessing_context=method,
        collate_fn=dict,
        timeout=60,
    )
    batches = list(loader)
    for key in ("image", "index", "label"):
        assert torch.equal(torch.cat([batch[key] for batch in batches]), here[key])
    dataset.close()


def test_images_looked_at_first_count_as_tried(image_folder, monkeypatch):
    monkeypatch.setattr(images, "_ENOUGH_TO_JUDGE", 1)
    root = image_folder(NAMES)
    spoil(root, 7)
    assert load_images(root)[7]["index"].item() == 8


def test_refusing_minds_small_images_among_those_looked_at_first(image_folder, encode):
    root = image_folder(NAMES)
    (root / "03.png").write_bytes(encode(height=5))
    with pytest.raises(ValueError, match=r"1 too_small: 03\.png"):
        load_images(root, size=8, on_bad="refuse")
