import numpy as np
import pandas as pd
import polars as pl
import pytest

from lsdr.regression.design import design_matrix, picked

FRAME = pd.DataFrame(
    {
        "a": [1, 2.5, np.nan],
        "g": ["x", "y", None],
        "k": [1, 2, 3],
        "b": [True, False, True],
        "c": pd.Categorical(["u", "v", "u"]),
    }
)
COLUMNS = [("a", ""), ("g", "y"), ("k", "2"), ("k", "3"), ("b", ""), ("c", "v")]
LEVELS = {"g": ("x", "y"), "k": ("1", "2", "3"), "c": ("u", "v")}
NAN = float("nan")
EXPECTED = [[1, 0, 0, 0, 1, 0], [2.5, 1, 1, 0, 0, 1], [NAN, NAN, 0, 1, 1, 0]]


def made(table, columns=COLUMNS, model=()):
    return design_matrix(table, columns, features=list(FRAME), model=list(model), levels=LEVELS)


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        pl.DataFrame(FRAME),
        pl.DataFrame(FRAME).to_arrow(),
        {name: FRAME[name].to_numpy() for name in FRAME},
        FRAME.to_numpy(dtype=object),
        FRAME[["c", "b", "k", "g", "a"]],
    ],
    ids=["pandas", "polars", "arrow", "dict", "objects", "shuffled"],
)
def test_every_kind_of_table_gives_the_same_columns(table):
    np.testing.assert_array_equal(made(table), EXPECTED)


def test_arrays_of_numbers_by_position():
    wide = np.arange(15.0).reshape(3, 5)
    np.testing.assert_array_equal(made(wide, [("b", ""), ("a", "")]), wide[:, [3, 0]])
    narrow = wide[:, [0, 3]]
    np.testing.assert_array_equal(made(narrow, [("b", ""), ("a", "")], model=["a", "b"]), wide[:, [3, 0]])


@pytest.mark.parametrize("table", [FRAME, np.ones((3, 5)), {"a": np.ones(3)}], ids=["frame", "array", "dict"])
def test_a_model_without_terms_has_no_columns(table):
    assert made(table, []).shape == (3, 0)


def test_refusals():
    with pytest.raises(ValueError, match="level 'z' in row 1, but the fit saw only 'x', 'y'"):
        made(FRAME.assign(g="z"))
    with pytest.raises(ValueError, match="'area' is needed, which the table lacks; did you mean 'aera'"):
        made(pd.DataFrame({"aera": [1.0]}), [("area", "")])
    with pytest.raises(ValueError, match="'a' must hold numbers"):
        made(FRAME.assign(a=["u", "v", "w"]))
    with pytest.raises(ValueError, match="the 5 columns of the data or the 2 of the model, got 3"):
        made(np.ones((3, 3)), [("a", "")], model=["a", "b"])
    with pytest.raises(TypeError, match="1 dimensions"):
        made(np.ones(3))
    with pytest.raises(TypeError, match="named columns"):
        picked(np.ones((2, 2)), ["a"])
