import datetime
import decimal
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source

ROWS = 40000
COLUMNS = {
    "a": np.random.default_rng(0).normal(size=ROWS),
    "n": np.arange(ROWS) % 7,
    "t": [("x", "y", "z")[i % 3] for i in range(ROWS)],
    "b": np.arange(ROWS) % 2 == 0,
    "y": np.random.default_rng(1).normal(size=ROWS),
}


def pandas_categorical():
    return pd.DataFrame(COLUMNS).astype({"t": pd.CategoricalDtype(["unused", "z", "y", "x"])})


def polars_enum():
    return pl.DataFrame(COLUMNS).with_columns(pl.col("t").cast(pl.Categorical))


class Stream:
    """Whatever hands out Arrow: a result of duckdb, say."""

    def __arrow_c_stream__(self, requested_schema=None):
        return pa.table(COLUMNS).__arrow_c_stream__(requested_schema)


TABLES = {
    "mapping": lambda: COLUMNS,
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas objects": lambda: pd.DataFrame(COLUMNS).astype(object),
    "pandas categorical": pandas_categorical,
    "pandas nullable": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "pandas arrow": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars categorical": polars_enum,
    "polars lazy": lambda: pl.DataFrame(COLUMNS).lazy(),
    "arrow": lambda: pa.table(COLUMNS),
    "arrow batch": lambda: pa.table(COLUMNS).combine_chunks().to_batches()[0],
    "arrow reader": lambda: pa.table(COLUMNS).to_reader(max_chunksize=999),
    "arrow dataset": lambda: pa.dataset.dataset(pa.table(COLUMNS)),
    "arrow stream": Stream,
    "pair of frames": lambda: (pd.DataFrame(COLUMNS).drop(columns="y"), pd.Series(COLUMNS["y"])),
    "pair of polars": lambda: (pl.DataFrame(COLUMNS).drop("y"), pl.Series(COLUMNS["y"])),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_gives_the_same_rows(read, kind):
    frame = read(TABLES[kind](), features=["n", "t", "a", "b"]).frame
    assert sorted(frame.columns[:6]) == ["a", "b", "n", "t[x]", "t[y]", "t[z]"]
    assert np.array_equal(frame["a"], COLUMNS["a"])
    assert np.array_equal(frame["n"], COLUMNS["n"])
    assert np.array_equal(frame["b"], COLUMNS["b"])
    assert np.array_equal(frame["<y>"], COLUMNS["y"])
    for level in "xyz":
        assert np.array_equal(frame[f"t[{level}]"], [word == level for word in COLUMNS["t"]])


def test_blocks_do_not_depend_on_how_the_table_came(read):
    blocks = {tuple(read(make(), features=["a"]).frame["<block>"]) for make in TABLES.values()}
    assert len(blocks) == 1


def test_a_hugging_face_dataset_is_read(read, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra [datasets] is not installed")
    dataset = datasets.Dataset.from_dict({"a": [1.0, 2.0, 3.0], "y": [1, 2, 3]}).select([2, 0])
    assert read(dataset).frame["a"].tolist() == [3.0, 1.0]


def test_columns_that_cannot_be_used_are_named_when_they_are_wanted(read):
    table = {
        "day": [datetime.date(2024, 1, 1)],
        "when": pd.Series([pd.Timestamp(2024, 1, 1)]),
        "many": [[1, 2]],
        "raw": [b"\x00"],
        "price": [decimal.Decimal("1.50")],
        "y": [1.0],
    }
    assert read(table, features=["price"]).frame["price"].tolist() == [1.5]
    for name, what in (
        ("day", "dates or times: turn it into numbers"),
        ("when", "dates"),
        ("many", "lists"),
        ("raw", "bytes"),
    ):
        with pytest.raises(ValueError, match=f"'{name}' of the table holds {what}"):
            read(table, features=["price", name])


def test_objects_that_mix_numbers_and_text_are_refused():
    with pytest.raises(ValueError, match="'a' of the table mixes kinds of values"):
        open_source(pd.DataFrame({"a": pd.Series([1, "x"], dtype=object), "y": [1, 2]}))


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", "a", "y"])
    with pytest.raises(ValueError, match="two columns named 'a'"):
        open_source(frame)
    with pytest.raises(ValueError, match="two columns named 'a'"):
        open_source(pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]))


def test_names_need_not_be_text(read):
    frame = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=[0, 1])
    assert read(frame, target="1").frame["0"].tolist() == [1.0, 3.0]


def test_pandas_rows_are_taken_by_position_not_by_label(read):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": [1, 2, 3]}, index=[5, 5, 0])
    assert read(frame).frame["a"].tolist() == [1.0, 2.0, 3.0]


def test_a_part_of_a_table_travels_without_the_rest_of_it():
    source = open_source(pl.DataFrame({"a": np.zeros(200000), "y": np.zeros(200000)}))
    parts = list(source.parts(make_plan(source, "y")))
    assert len(parts) == 7
    sent = pickle.dumps(parts[3])
    assert len(sent) < 2**15 * 16 + 20000
    assert sum(len(batch.y) for batch in pickle.loads(sent).batches()) == 2**15


@pytest.mark.parametrize("thing", [3, 2.5, None, object()])
def test_what_is_no_table_is_refused(thing):
    with pytest.raises(TypeError, match="cannot read a table from a"):
        open_source(thing)


def test_a_matrix_alone_has_no_target():
    with pytest.raises(TypeError, match=r"cannot read a table from a ndarray: .* a pair \(X, y\)"):
        open_source(np.ones((3, 2)))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        open_source({"a": [1, 2], "y": [1]})


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_numbers_written_as_text_are_no_factor_unless_said_so(read, tmp_path, make):
    table = {"a": ["3", "1.5", "3", None], "y": [1.0, 2.0, 3.0, 4.0]}
    with pytest.raises(
        ValueError, match=r"'a' holds numbers written as text: '3' in row 1 of the table; .*categorical"
    ):
        read(make(table))
    with pytest.raises(ValueError, match=r"'a' holds numbers, but also text: 'low' in row 2 of the table"):
        read(make(table | {"a": ["3", "low", "4", "5"]}))
    assert list(read(make(table), categorical=["a"]).frame.columns[:2]) == ["a[1.5]", "a[3]"]


def test_whoever_makes_a_category_means_labels(read, tmp_path):
    frame = pd.DataFrame({"a": pd.Categorical(["3", "1", "3"]), "y": [1.0, 2.0, 3.0]})
    assert list(read(frame).frame.columns[:2]) == ["a[1]", "a[3]"]
    frame.to_parquet(tmp_path / "category.parquet")
    assert list(read(tmp_path / "category.parquet").frame.columns[:2]) == ["a[1]", "a[3]"]
    frame.astype({"a": str}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="'a' holds numbers written as text"):
        read(tmp_path / "text.parquet")
