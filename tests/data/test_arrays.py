"""NumPy archives and IDX files: layouts, ranges, and nothing ever unpickled."""

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from lsdr.data import npz
from lsdr.data.arrays import ArrayReader, layout_of
from lsdr.data.load import load_images


@pytest.fixture
def archive(tmp_path):
    def make(compressed=False, **arrays):
        path = tmp_path / "data.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return make


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pixels_arrive_unchanged(archive, compressed, order, layout):
    nhwc = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
    stored = np.asarray(nhwc if layout == "NHWC" else nhwc.transpose(0, 3, 1, 2), order=order)
    dataset = load_images(archive(compressed, other=np.zeros(7), images=stored))
    assert dataset.shape == (3, 6, 5)
    batch = dataset.__getitems__(range(7))
    assert np.array_equal(batch["image"], nhwc.transpose(0, 3, 1, 2))
    assert isinstance(dataset.reader._array, np.memmap) is not compressed


def test_grey_and_transparent_layouts(archive):
    grey = np.random.default_rng(0).integers(0, 256, (4, 6, 5), dtype=np.uint8)
    for stored in (grey, grey[..., None], grey[:, None]):
        dataset = load_images(archive(x=stored))
        assert dataset.shape == (1, 6, 5)
        assert np.array_equal(dataset.__getitems__(range(4))["image"][:, 0], grey)
    clear = np.zeros((2, 6, 5, 4), dtype=np.uint8)
    assert (load_images(archive(x=clear))[0]["image"] == 255).all()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((9, 28, 28), "NHW"),
        ((3, 3, 3), "NHW"),
        ((9, 32, 32, 3), "NHWC"),
        ((9, 1, 28, 28), "NCHW"),
        ((3, 4, 16, 16), "NCHW"),
    ],
)
def test_layout(shape, layout):
    assert layout_of(shape, "x") == layout


@pytest.mark.parametrize(
    ("shape", "match"),
    [((9, 3, 4, 4), "both the second and the last"), ((9, 8, 8, 2), "neither"), ((9, 8), r"expected \(N, H, W\)")],
)
def test_no_layout(shape, match):
    with pytest.raises(ValueError, match=match):
        layout_of(shape, "x")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([-1, 0.0, 1.0]), [0, 128, 255]),
        (np.array([0, 100.4, 255.0]), [0, 100, 255]),
        (np.array([0, 1, 255], dtype=np.int64), [0, 1, 255]),
        (np.array([0, 1, 1], dtype=np.int32), [0, 1, 1]),
        (np.array([0, 257, 65535], dtype=np.uint16), [0, 1, 255]),
        (np.array([False, True, True]), [0, 255, 255]),
        (np.array([0, 0.5, 1.0], dtype=np.float16), [0, 128, 255]),
    ],
)
def test_range(values, expected):
    reader = ArrayReader(np.broadcast_to(values, (2, 4, 3)), "x")
    assert reader.read(1)[0].tolist() == expected


@pytest.mark.parametrize("values", [[-3.0, 5.0], [0.0, 300.0], [-0.5, 200.0]])
def test_no_range(archive, values):
    with pytest.raises(ValueError, match=r"holds values from .* expected \[0, 255\]"):
        load_images(archive(x=np.broadcast_to(np.array(values), (2, 4, 2))))


@pytest.mark.parametrize("dtype", [complex, "U3", "M8[s]"])
def test_no_numbers(archive, dtype):
    with pytest.raises(ValueError, match="expected integers or real numbers"):
        load_images(archive(x=np.zeros((2, 4, 4), dtype=dtype)))


def test_non_finite_images_are_problems(archive):
    images = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
    images[2, 1, 1], images[5, 0, 0] = np.nan, np.inf
    dataset = load_images(archive(images=images))
    assert dataset.__getitems__(range(6))["index"].tolist() == [0, 1, 3, 3, 4, 0]
    assert dataset.problem_summary() == [{"kind": "non_finite", "count": 2, "examples": ["data.npz#2", "data.npz#5"]}]
    with pytest.raises(ValueError, match="2 non_finite"):
        load_images(archive(images=images), on_bad="refuse")
    with pytest.raises(ValueError, match="no finite number"):
        load_images(archive(images=np.full((2, 4, 4), np.nan)))


def test_labels(archive):
    images = np.zeros((4, 5, 5), dtype=np.uint8)
    dataset = load_images(archive(arr_0=images, y=np.array([[5], [2], [5], [5]])))
    assert dataset.class_names == ("2", "5")
    assert dataset.__getitems__(range(4))["label"].tolist() == [1, 0, 1, 1]
    assert load_images(archive(x=images, labels=np.array(["a", "b", "b", "c"]))).class_names == ("a", "b", "c")
    assert load_images(archive(x=images)).classes is None
    for labels in (np.zeros(3, dtype=int), np.eye(4), np.zeros(4)):
        with pytest.raises(ValueError, match="expected one integer or string for each of the 4 images"):
            load_images(archive(x=images, y=labels))


def test_which_array(archive):
    train, test = np.zeros((4, 5, 5), dtype=np.uint8), np.zeros((3, 5, 5), dtype=np.uint8)
    labels = {"y_test": np.arange(3), "y_train": np.arange(4)}
    dataset = load_images(archive(x_test=test, x_train=train, **labels))
    assert (len(dataset), dataset.classes) == (4, 4)
    assert len(load_images(archive(images=np.zeros(7), something=test))) == 3
    with pytest.raises(ValueError, match=r"three or four axes; it holds a \(4, 5\)"):
        load_images(archive(a=np.zeros((4, 5))))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("key", ["images", "labels"])
def test_objects_are_never_unpickled(archive, key):
    arrays = {"images": np.zeros((1, 2, 2), dtype=np.uint8), "labels": np.zeros(1, dtype=int)}
    objects = np.empty(arrays[key].shape, dtype=object)
    objects[...] = Bomb()
    path = archive(**(arrays | {key: objects}))
    with pytest.raises(ValueError, match="Python objects"):
        load_images(path)


def test_archive_that_claims_more_than_it_holds(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 4096, 4096)})
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / "bomb.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("images.npy", header.getvalue() + b"\0" * 100)
        with pytest.raises(ValueError, match=r"GB of memory|claims 16777216000000 bytes .* holds 100"):
            load_images(path)


def test_compressed_archive_that_would_fill_the_memory(archive, monkeypatch):
    monkeypatch.setattr(npz, "_LARGEST_COMPRESSED", 10_000)
    images = np.zeros((100, 16, 16), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"would take .* write it with numpy\.savez, uncompressed"):
        load_images(archive(compressed=True, images=images))
    assert len(load_images(archive(images=images))) == 100


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_archives(archive, compressed):
    raw = archive(compressed, images=np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)).read_bytes()
    path = archive()
    for broken in (b"", b"text", raw[:200], raw[: len(raw) - 30]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"data\.npz cannot be read as \.npz"):
            load_images(path)
    generator = np.random.default_rng(1)
    for _ in range(80):
        broken = bytearray(raw)
        broken[generator.integers(len(raw))] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            load_images(path).__getitems__([0])
        except ValueError:
            continue


def test_archive_of_other_files(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", "hello, I am no array")
    with pytest.raises(ValueError, match=r"images\.npy is not a NumPy array"):
        load_images(path)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_archive_is_pickled_as_its_place(archive, order):
    images = np.asarray(np.random.default_rng(0).integers(0, 256, (50, 32, 32), dtype=np.uint8), order=order)
    dataset = load_images(archive(images=images))
    raw = pickle.dumps(dataset.reader)
    assert len(raw) < 2000
    copy = pickle.loads(raw)
    assert all(np.array_equal(copy.read(index), images[index]) for index in range(50))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path, suffix):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
    pack = gzip.compress if suffix else bytes
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(images)))
    assert load_images(path).classes is None
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.array([3, 1, 3, 1, 3], dtype=np.uint8))))
    dataset = load_images(path)
    batch = dataset.__getitems__(range(5))
    assert np.array_equal(batch["image"][:, 0], images)
    assert batch["label"].tolist() == [1, 0, 1, 0, 1]
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.array([3], dtype=np.uint8))))
    with pytest.raises(ValueError, match="1 labels for 5 images"):
        load_images(path)
    for broken in (b"", b"abcdefghijkl", idx(images)[:-7], idx(images[0])):
        path.write_bytes(pack(broken))
        with pytest.raises(ValueError, match="idx3-ubyte"):
            load_images(path)
    if suffix:
        path.write_bytes(pack(idx(images))[:40])
        with pytest.raises(ValueError, match="cannot be read as IDX"):
            load_images(path)
