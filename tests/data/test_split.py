import numpy as np
import pytest
import torch

from lsdr.data.embedded import PatchesReader
from lsdr.data.load import load_images
from lsdr.data.split import check_fits, held_out, split


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def patches():
    return load_images("patches")


def test_parts_cover_all_and_share_nothing(digits):
    train, heldout = split(digits, 100, seed=3)
    assert len(heldout) == 100
    assert torch.equal(torch.cat([train, heldout]).sort().values, torch.arange(1797))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(heldout, heldout.sort().values)


def test_the_seed_alone_decides(digits, patches):
    for dataset in (digits, patches):
        state = torch.random.get_rng_state()
        first, again, other = (split(dataset, 0.05, seed)[1] for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(state, torch.random.get_rng_state())


def test_split_is_the_same_in_every_version(digits):
    assert split(digits, 5, seed=0)[1].tolist() == [362, 815, 1440, 1568, 1761]


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("holdout", [1, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patches_held_out_share_no_pixel_with_training(size, holdout, seed):
    dataset = load_images("patches", size=size)
    train, heldout = split(dataset, holdout, seed)
    assert len(heldout) == held_out(len(dataset), holdout)
    assert len(train) > 0.4 * (len(dataset) - len(heldout))
    corners = dataset.reader._corners
    covered = np.zeros((2, 2, 240, 360), dtype=bool)
    for part, indices in enumerate((train, heldout)):
        for number, top, left in corners[indices.numpy()]:
            covered[part, number, top : top + size, left : left + size] = True
    assert covered[0].any()
    assert not (covered[0] & covered[1]).any()
    if len(heldout) > 100:
        assert {name[0] for name in map(dataset.name, heldout.tolist())} == {"c", "f"}


def test_limited_patches_stay_apart():
    dataset = load_images("patches", limit=500)
    train, heldout = split(dataset, 50, seed=0)
    lefts, width = dataset.strips()
    assert np.abs(lefts[train.numpy()][:, None] - lefts[heldout.numpy()]).min() >= width
    assert dataset.name(499).endswith(f"{lefts[499]}:{lefts[499] + 16}]")


def test_patches_without_room_for_training(patches):
    with pytest.raises(ValueError, match="leaves none that share no pixel"):
        split(patches, len(patches) - 1, seed=0)


def test_patches_show_the_photographs(patches):
    assert patches.shape == (3, 16, 16)
    assert patches.classes is None
    images = patches.__getitems__(range(0, len(patches), 7))["image"].float()
    assert images.std(dim=(1, 2, 3)).median() > 15  # a crop has content
    assert not torch.equal(images[:, 0], images[:, 2])  # and colour
    reader = PatchesReader()
    left, right = reader.read(0), reader.read(1)
    assert np.array_equal(left[:, 4:], right[:, :-4])


def test_patches_too_large():
    with pytest.raises(ValueError, match="choose size=214 or less"):
        load_images("patches", size=300)


def test_digits_are_stretched_to_white(digits):
    from sklearn.datasets import load_digits

    batch = digits.__getitems__(range(1797))
    theirs = load_digits()
    assert batch["image"].max() == 255
    assert np.abs(batch["image"][:, 0].numpy() - theirs.images * 255 / 16).max() <= 0.5
    assert np.array_equal(batch["label"], theirs.target)


def test_digits_are_never_enlarged():
    with pytest.raises(ValueError, match=r"digits#0, 8x8.*--size 8"):
        load_images("digits", size=16)


@pytest.mark.parametrize("holdout", [0, 0.0])
def test_nothing_held_out(digits, patches, holdout):
    for dataset in (digits, patches):
        train, heldout = split(dataset, holdout, seed=0)
        assert (len(train), len(heldout)) == (len(dataset), 0)


@pytest.mark.parametrize(
    ("count", "batch_size", "holdout", "match"),
    [
        (0, 1, 0, "no images"),
        (1, 1, 0.1, "holding out 1 of 1 image.* leaves none"),
        (10, 11, 0, "batch of 11 is larger than the 10 image"),
        (10, 8, 3, "larger than the 7 image.*--batch-size 7"),
        (10, 2, 10, "leaves none to train on"),
        (10, 2, -1, "holdout=-1 is negative"),
        (10, 2, 1.0, "no fraction"),
        (10, 2, -0.5, "no fraction"),
        (10, 0, 0, "batch_size=0"),
    ],
)
def test_what_does_not_fit(count, batch_size, holdout, match):
    with pytest.raises(ValueError, match=match):
        check_fits(count, batch_size, holdout)


def test_what_fits():
    check_fits(1, 1)
    check_fits(10, 7, 3)
    check_fits(10, 9, 0.01)
