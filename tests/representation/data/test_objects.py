import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from lsdr.representation.data.objects import rows_in_memory
from lsdr.representation.data.open import open_data

COLUMNS = {"a": [1.0, 2.0, None, 4.0], "b": ["x", "y", None, "x"]}


def test_frames_of_every_kind_are_one_table():
    found = [open_data(each, holdout=0) for each in (COLUMNS, pd.DataFrame(COLUMNS), pl.DataFrame(COLUMNS))]
    batches = [data.train.__getitems__([0, 1, 2, 3]) for data in found]
    assert all(torch.equal(batches[0][name], batch[name]) for batch in batches for name in batches[0])
    assert batches[0]["missing"].tolist() == [[False, False], [False, False], [True, True], [False, False]]
    assert batches[0]["categorical"][:, 0].tolist() == [1, 2, 0, 1]
    assert len(found[0].heldout) == 0
    assert found[0].show(1) == "a=2, b=y"


def test_new_rows_go_by_what_was_learned():
    data = open_data({"b": ["x", "y", "x"], "a": [1.0, 2.0, 3.0]}, holdout=0)
    new = rows_in_memory(pd.DataFrame({"a": [2.0, np.nan], "other": [0, 0], "b": ["y", "z"]}), data.fields)
    assert new["numeric"].tolist() == [[0.0], [0.0]]
    assert new["categorical"].tolist() == [[2], [0]]
    assert new["missing"].tolist() == [[False, False], [True, True]]
    with pytest.raises(ValueError, match="no column 'b'; the columns are a"):
        rows_in_memory({"a": [1.0]}, data.fields)
    with pytest.raises(ValueError, match="'a' holds list"):
        rows_in_memory({"a": [[1.0]], "b": ["x"]}, data.fields)
    with pytest.raises(ValueError, match="expected a table, got texts"):
        rows_in_memory(["a text"], data.fields)
    numbers = open_data(np.arange(12.0).reshape(4, 3), holdout=0)
    assert numbers.fields.numeric == ("x0", "x1", "x2")
    torch.testing.assert_close(
        rows_in_memory(np.arange(3.0)[None], numbers.fields)["numeric"], numbers.train.__getitems__([0])["numeric"]
    )


def test_new_images_have_the_shape_of_the_old():
    pixels = np.random.default_rng(0).integers(0, 4000, (6, 5, 8, 8)).astype(np.uint16)
    data = open_data(pixels, holdout=0)
    new = rows_in_memory(pixels[:2].transpose(0, 2, 3, 1), data.fields)
    assert torch.equal(new["image"], data.train.__getitems__([0, 1])["image"])
    assert torch.equal(
        rows_in_memory(torch.rand(2, 5, 8, 8), data.fields)["image"].isfinite().all(), torch.tensor(True)
    )
    assert rows_in_memory(pixels[:0], data.fields)["image"].shape == (0, 5, 8, 8)
    with pytest.raises(ValueError, match=r"shape \(5, 8, 8\), as in training, got \(5, 9, 8\)"):
        rows_in_memory(np.zeros((2, 5, 9, 8)), data.fields)
    with pytest.raises(ValueError, match="NaN or infinity"):
        rows_in_memory(np.full((2, 5, 8, 8), np.nan), data.fields)
    with pytest.raises(ValueError, match="array of images of shape"):
        rows_in_memory(["a text"], data.fields)


@pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series])
def test_texts(make):
    data = open_data(make(["hello world", "a rose is a rose", "", "is it"] * 3), holdout=0, length=8, vocabulary=300)
    assert (data.modality, len(data.train), data.problems()[0]["count"]) == ("text", 9, 3)
    new = rows_in_memory(make(["a rose is a rose", ""]), data.fields)
    assert torch.equal(new["tokens"][:1], data.train.__getitems__([1])["tokens"])
    assert new["tokens"][1].tolist() == [data.fields.unknown] + [data.fields.padding] * 7  # never padding alone


def test_a_column_of_texts_and_texts_that_are_missing():
    data = open_data(pd.DataFrame({"said": ["hello", None, "you"], "n": [1, 2, 3]}), text="said", holdout=0)
    assert (data.modality, len(data.train)) == ("text", 2)
    with pytest.raises(ValueError, match="no column 'other'"):
        open_data(pd.DataFrame({"said": ["hello"]}), text="other")


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        (5, TypeError, "cannot learn from a int"),
        ([[1, 2], [3]], ValueError, "rows of different lengths"),
        (np.arange(5), ValueError, r"shape \(5,\)"),
        ([], ValueError, r"shape \(0,\)"),
        (pd.DataFrame({"a": []}), ValueError, "no rows"),
        ({"a": [1, 2], "b": [1]}, ValueError, "differ in length"),
        (np.full((5, 2), np.nan), ValueError, "no column is left"),
    ],
)
def test_what_cannot_be_learned_from(source, kind, said):
    with pytest.raises(kind, match=said):
        open_data(source)
    with pytest.raises(ValueError, match="are tables, not images"):
        open_data(COLUMNS, modality="image")
