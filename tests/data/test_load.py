"""What a person gets told who points at the wrong thing."""

import pytest

from lsdr.data.load import load_images


def test_missing_path_names_close_ones(tmp_path, image_folder):
    root = image_folder(["a.png"], folder="portraits")
    (root.parent / ".portrait").mkdir()
    with pytest.raises(ValueError, match=r"there is no .*portrait; did you mean .*portraits") as caught:
        load_images(tmp_path / "portrait")
    assert ".portrait?" not in str(caught.value)
    with pytest.raises(ValueError, match=r"did you mean .*portraits"):
        load_images(str(tmp_path / "potraits" / "train"))
    with pytest.raises(ValueError, match="did you mean digits"):
        load_images("digit")


def test_what_looks_like_a_hub_name_is_not_looked_for_on_the_network():
    with pytest.raises(ValueError, match="hf:someone/something"):
        load_images("someone/something")


@pytest.mark.parametrize("content", [[], ["notes.txt", "labels.csv"]])
def test_folder_without_images(tmp_path, content):
    for name in content:
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match="holds no images") as caught:
        load_images(tmp_path)
    assert all(name in str(caught.value) for name in content)


def test_folder_in_which_nothing_is_an_image(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("x")
    with pytest.raises(ValueError, match=r"not_an_image: 0\.png"):
        load_images(tmp_path)


def test_files_that_are_no_source(image_folder):
    root = image_folder(["a.png"])
    with pytest.raises(ValueError, match="is one image; give the folder"):
        load_images(root / "a.png")
    (root / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"expected a folder, a \.parquet, \.npz or idx3-ubyte file"):
        load_images(root / "a.csv")


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"size": 0}, "size=0 must be at least 1"),
        ({"channels": 2}, "channels=2 must be 1"),
        ({"limit": 0}, "limit=0 must be at least 1"),
    ],
)
def test_options_out_of_range(option, match):
    with pytest.raises(ValueError, match=match):
        load_images("digits", **option)


def test_a_folder_called_digits_is_reached_by_its_path(image_folder, monkeypatch):
    root = image_folder(["a.png"], folder="digits")
    monkeypatch.chdir(root.parent)
    assert len(load_images("./digits")) == 1
    assert len(load_images("digits")) == 1797
