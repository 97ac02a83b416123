"""Stacked digits: labels, parts, sizes, sources."""

import struct

import numpy as np
import pytest
import torch

from lsdr.gan.stacked import load_stacked


@pytest.fixture(scope="module")
def pictures():
    return load_stacked("stacked-digits", 400)


def as_bytes(digits):
    return {digit.numpy().tobytes() for digit in digits}


def test_a_label_names_the_three_digits(pictures):
    known = zip(pictures.digits, pictures.digit_labels, strict=True)
    label_of = {digit.numpy().tobytes(): int(label) for digit, label in known}
    batch = pictures.__getitems__(range(400))
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (400, 3, 8, 8)
    assert batch["index"].tolist() == list(range(400))
    for image, label in zip(batch["image"], batch["label"].tolist(), strict=True):
        red, green, blue = (label_of[colour.numpy().tobytes()] for colour in image)
        assert label == 100 * red + 10 * green + blue
    assert pictures.name(3) == f"stacked-digits#3 ({int(batch['label'][3]):03d})"
    assert torch.equal(pictures[3]["image"], batch["image"][3])


def test_colours_are_drawn_independently(pictures):
    many = load_stacked("stacked-digits", 20_000)
    label = many.__getitems__(range(20_000))["label"]
    digits = torch.stack([label // 100, label // 10 % 10, label % 10]).double()
    assert torch.corrcoef(digits).triu(1).abs().max() < 0.03


def test_parts_share_no_digit(pictures):
    heldout = load_stacked("stacked-digits", 400, part="heldout")
    assert not as_bytes(pictures.digits) & as_bytes(heldout.digits)
    assert len(pictures.digits) + len(heldout.digits) == 1797


def test_the_seed_decides_the_triples_alone(pictures):
    other = load_stacked("stacked-digits", 400, seed=1)
    again = load_stacked("stacked-digits", 400)
    assert torch.equal(other.digits, pictures.digits)
    assert torch.equal(again.__getitems__(range(400))["label"], pictures.__getitems__(range(400))["label"])
    assert not torch.equal(other.__getitems__(range(400))["label"], pictures.__getitems__(range(400))["label"])


def test_probabilities_are_products_of_digit_frequencies(pictures):
    share = pictures.digit_labels.bincount() / len(pictures.digits)
    assert pictures.probabilities.sum().item() == pytest.approx(1)
    assert pictures.probabilities[358].item() == pytest.approx(float(share[3] * share[5] * share[8]))


@pytest.mark.parametrize("size", [4, 16])
def test_sizes_below_and_above_the_digits_own(pictures, size):
    scaled = load_stacked("stacked-digits", 3, size=size)
    assert scaled.shape == (3, size, size)
    brightness = [digits.float().mean((1, 2)) for digits in (scaled.digits, pictures.digits)]
    torch.testing.assert_close(*brightness, rtol=0, atol=10)


def write_idx(folder, labels):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 6, 6), dtype=np.uint8)
    (folder / "a-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, *images.shape) + images.tobytes())
    (folder / "a-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(labels)) + bytes(labels))
    return folder / "a-images-idx3-ubyte"


def test_a_labelled_idx_file_is_a_source(tmp_path):
    source = write_idx(tmp_path, [*range(10)] * 5)
    pictures = load_stacked(f"stacked:{source}", 20)
    assert pictures.shape == (3, 6, 6)
    assert len(pictures.digits) == 45


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ten classes, and .* has 3"):
        load_stacked(f"stacked:{write_idx(tmp_path, [0, 1, 2] * 9)}", 20)
    with pytest.raises(ValueError, match="no labels"):
        load_stacked("stacked:patches", 20)
    with pytest.raises(ValueError, match="expected stacked-digits"):
        load_stacked("digits", 20)
    with pytest.raises(ValueError, match="there is no"):
        load_stacked(f"stacked:{tmp_path / 'nothing'}", 20, size=8)
    for wrong in ({"count": 0}, {"count": 5, "holdout": 0.0}):
        with pytest.raises(ValueError, match="count of at least 1"):
            load_stacked("stacked-digits", **wrong)
