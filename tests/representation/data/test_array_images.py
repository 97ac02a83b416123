import pickle

import numpy as np
import pytest
import torch

from lsdr.representation.data.array_images import channel_axis
from lsdr.representation.data.open import open_data
from lsdr.representation.data.representation_data import prepare

DRAW = np.random.default_rng(0)


def test_multispectral_files(tmp_path):
    pixels = DRAW.integers(0, 4000, (30, 13, 16, 12)).astype(np.uint16)
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", images=pixels.transpose(0, 2, 3, 1), labels=np.arange(30) % 3)
    one = open_data(str(tmp_path / "a.npy"), holdout=0, channels=13)
    two = open_data(str(tmp_path / "b.npz"), holdout=0, channels=13)
    assert one.fields == two.fields
    assert (one.fields.shape, one.fields.largest, one.classes, two.classes) == ((13, 16, 12), 4095, None, 3)
    for data in (one, two, pickle.loads(pickle.dumps(one))):
        batch = data.train.__getitems__([4, 29])
        np.testing.assert_array_equal(batch["image"], pixels[[4, 29]])
        np.testing.assert_allclose(prepare(batch, data.fields)["image"], pixels[[4, 29]] / 4095, rtol=1e-6)
    assert len(pickle.dumps(one)) < pixels.nbytes / 2  # the file is mapped again, not copied
    mean = (pixels / 4095).mean((0, 2, 3))
    np.testing.assert_allclose(one.fields.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(one.fields.deviation, (pixels / 4095).std((0, 2, 3)), rtol=1e-9)


@pytest.mark.parametrize(
    ("pixels", "smallest", "largest"),
    [
        (DRAW.integers(0, 256, (9, 4, 4)).astype(np.uint8), 0, 255),
        (np.full((9, 4, 4), 200, dtype=np.int64), 0, 255),
        (np.full((9, 4, 4), 1000, dtype=np.int16), 0, 1023),
        (np.full((9, 4, 4), 65535, dtype=np.uint16), 0, 65535),
        (np.full((9, 4, 4), 70000, dtype=np.int32), 0, 70000),
        (np.full((9, 4, 4), 0.25), 0, 1),
        (np.full((9, 4, 4), 2.5, dtype=np.float32), 0, 2.5),
        (np.linspace(-1, 1, 144).reshape(9, 4, 4), -1, 1),
        (np.ones((9, 4, 4), dtype=bool), 0, 1),
    ],
)
def test_scales_of_every_kind_of_number(pixels, smallest, largest):
    data = open_data(pixels, holdout=0)
    assert (data.fields.smallest, data.fields.largest) == (smallest, largest)
    image = prepare(data.train.__getitems__([3]), data.fields)["image"]
    expected = (pixels[3].astype(np.float64) - smallest) / (largest - smallest)
    np.testing.assert_allclose(image[0, 0], expected, atol=1e-6)


def test_brighter_than_what_was_learned_from_is_one():
    data = open_data(np.full((9, 4, 4), 1000, dtype=np.uint16), holdout=0)
    brighter = {"image": torch.tensor([[[[2046, 1023]]]]), "index": torch.tensor([0])}
    assert prepare(brighter, data.fields)["image"].tolist() == [[[[1.0, 1.0]]]]


def test_a_channel_that_is_constant_has_deviation_one():
    pixels = DRAW.random((9, 2, 4, 5))
    pixels[:, 1] = 0.5
    assert open_data(pixels, holdout=0).fields.deviation[1] == 1


def test_images_with_nan_are_replaced_within_their_part_or_refused():
    pixels = DRAW.random((30, 5, 6, 6))
    pixels[7, 2, 3, 1] = np.nan
    data = open_data(pixels, holdout=0)
    batch = data.train.__getitems__([6, 7, 8])
    assert batch["index"].tolist() == [6, 8, 8]
    assert torch.isfinite(batch["image"]).all()
    assert [each["kind"] for each in data.problems()] == ["non_finite"]
    with pytest.raises(ValueError, match="image#7 cannot be used: the pixels hold NaN"):
        open_data(pixels, holdout=0, on_bad="refuse")
    pixels[:] = np.nan
    with pytest.raises(ValueError, match="holds no image that can be read"):
        open_data(pixels)
    pixels[:2] = 0.5
    with pytest.raises(ValueError, match="most images of this part cannot be used"):
        open_data(pixels)


def test_files_of_one_image_each(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            np.save(tmp_path / name / f"{number}.npy", np.full((7, 6, 6), number / 4))
    (tmp_path / "b" / "9.npy").write_bytes(b"junk")
    data = open_data(str(tmp_path), holdout=0)
    assert (data.fields.shape, data.class_names, len(data.train)) == ((7, 6, 6), ("a", "b"), 9)
    batch = data.train.__getitems__([1, 8])
    assert (batch["label"].tolist(), data.name(int(batch["index"][1]))) == ([0, 0], "a/0.npy")
    assert data.problems() == [{"kind": "damaged", "count": 1, "examples": ["b/9.npy"]}]
    np.save(tmp_path / "a" / "8.npy", np.zeros((7, 5, 5)))
    with pytest.raises(ValueError, match=r"differ in shape \(a/0.npy is \(7, 6, 6\), a/8.npy is \(7, 5, 5\)\)"):
        open_data(str(tmp_path), holdout=0)


def test_scaled_to_a_size():
    pixels = np.zeros((5, 9, 12, 20))
    pixels[..., 4:16] = 1.0  # the centre square
    data = open_data(pixels, holdout=0, size=6)
    assert data.fields.shape == (9, 6, 6)
    assert torch.equal(data.train.__getitems__([0])["image"], torch.ones(1, 9, 6, 6))
    with pytest.raises(ValueError, match="between 1 and 12"):
        open_data(pixels, size=13)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((30, 16, 16, 16, 2)), "expected .n, p. for a table"),
        (np.zeros((3, 4, 5, 4)), "both the second and the last axis"),
        (-3 * DRAW.random((9, 4, 4)), "expected none below 0"),
        (np.full((9, 4, 4), -3), "whole numbers from -3"),
        (np.zeros((9, 4, 4), dtype=complex), "complex"),
        (np.zeros((0, 4, 4)), "holds no images"),
    ],
)
def test_arrays_that_are_no_images(pixels, said):
    with pytest.raises(ValueError, match=said):
        open_data(pixels)


def test_files_that_are_no_images(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 16)))
    with pytest.raises(ValueError, match=r"shape \(30, 16\): expected"):
        open_data(str(tmp_path / "a.npy"))
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read as npy"):
        open_data(str(tmp_path / "b.npy"))
    np.savez(tmp_path / "c.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds no array of images.*other \(3,\)"):
        open_data(str(tmp_path / "c.npz"))
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 8, 8)), y=np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match="one integer or text for each"):
        open_data(str(tmp_path / "d.npz"))


def test_where_the_channels_are():
    assert channel_axis((9, 64, 64, 13), "x") == 3
    assert channel_axis((9, 128, 64, 64), "x") == 1
    assert channel_axis((9, 8, 5, 4), "x", channels=8) == 1
    with pytest.raises(ValueError, match="no axis is 5 channels long"):
        channel_axis((9, 8, 6, 4), "x", channels=5)
