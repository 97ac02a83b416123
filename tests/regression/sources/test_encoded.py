import numpy as np
import pandas as pd
import pytest

from lsdr.regression.one_pass import one_pass
from lsdr.regression.plan import make_plan
from lsdr.regression.sources import encoded
from lsdr.regression.sources.open import open_source


def test_rows_with_a_missing_value_are_left_out_and_counted_by_column(read):
    table = {
        "a": [1.0, None, 3.0, 4.0, float("nan")],
        "b": ["u", "v", None, "u", None],
        "unused": [None] * 5,
        "y": [1, 2, 3, None, 5],
    }
    kept = read(table, features=["a", "b"])
    assert kept.frame["<y>"].tolist() == [1.0]
    assert kept.missing == 4
    assert kept.missing_by == {"a": 2, "b": 2, "y": 1}


def test_missing_rows_move_no_other_row_to_another_block(read):
    x = np.random.default_rng(0).normal(size=(500, 2))
    whole = read((x, np.arange(500.0))).frame
    holes = x.copy()
    holes[::7, 1] = np.nan
    kept = read((holes, np.arange(500.0))).frame
    expected = whole[whole["<y>"] % 7 != 0]
    assert kept["<block>"].tolist() == expected["<block>"].tolist()


def test_missing_values_can_be_refused(read):
    with pytest.raises(ValueError, match=r"row 3 of the table has a missing value \('b' have some"):
        read({"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, None], "y": [1, 2, 3]}, missing="raise")


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["arrays", "table"])
@pytest.mark.parametrize("column", ["x1", "y"])
def test_an_infinite_value_is_refused_with_its_row_and_column(read, monkeypatch, bad, kind, column):
    monkeypatch.setattr(encoded, "BATCH_ROWS", 5000)
    x, y = np.ones((70000, 3)), np.ones(70000)
    (x[:, 1] if column == "x1" else y)[65432] = bad
    data = (x, y) if kind == "arrays" else pd.DataFrame(x, columns=["x0", "x1", "x2"]).assign(y=y)
    with pytest.raises(ValueError, match=rf"column '{column}' is infinite \({bad}\) in row 65433 of"):
        read(data)


def test_huge_finite_values_are_not_taken_for_infinite(read):
    x = np.full((10, 1), 1e308)
    assert len(read((x, np.ones(10))).frame) == 10


def test_weights_are_checked(read):
    table = {"a": [1.0, 2.0, 3.0], "w": [1.0, 0.5, -2.0], "y": [1, 2, 3]}
    with pytest.raises(ValueError, match=r"the weight 'w' is -2.0 in row 3 of the table"):
        read(table, weights="w")
    with pytest.raises(ValueError, match=r"the weight 'w' is 0.5 in row 2 .* whole numbers"):
        read(table | {"w": [1.0, 0.5, 2.0]}, weights="w", weight_kind="frequency")
    kept = read(table | {"w": [1.0, None, 0.0]}, weights="w")
    assert kept.frame["<w>"].tolist() == [1.0, 0.0]
    assert kept.missing_by == {"w": 1}


def test_boolean_is_0_and_1_and_text_a_dummy_a_level(read):
    frame = read({"b": [True, False, True], "t": ["x", "", "x"], "y": [False, True, True]}).frame
    assert frame["b"].tolist() == [1.0, 0.0, 1.0]
    assert frame["t[x]"].tolist() == [1.0, 0.0, 1.0]
    assert frame['t[""]'].tolist() == [0.0, 1.0, 0.0]
    assert frame["<y>"].tolist() == [0.0, 1.0, 1.0]


def test_whole_numbers_are_numbers_unless_said_otherwise(read):
    table = {"n": [3, 1, 3], "y": [1, 2, 3]}
    assert read(table).frame["n"].tolist() == [3.0, 1.0, 3.0]
    frame = read(table, categorical=["n"]).frame
    assert list(frame.columns[:2]) == ["n[1]", "n[3]"]
    assert frame["n[3]"].tolist() == [1.0, 0.0, 1.0]


def test_a_batch_of_many_levels_stays_small():
    levels = [f"l{i % 900}" for i in range(20000)]
    source = open_source({"t": levels, "y": np.ones(20000)})
    plan = make_plan(source, "y")
    batches = [batch for part in source.parts(plan) for batch in part.batches()]
    assert max(batch.x.size for batch in batches) <= 2**22
    assert sum(len(batch.y) for batch in batches) == 20000
    assert [batch.start for batch in batches] == np.cumsum([0] + [len(batch.y) for batch in batches[:-1]]).tolist()


def test_more_than_a_thousand_levels_are_an_identifier(read):
    with pytest.raises(ValueError, match=r"'name' is a factor of more than 1000 levels.*identifier"):
        read({"name": [f"n{i}" for i in range(1001)], "y": np.ones(1001)})
    assert len(read({"name": [f"n{i}" for i in range(1000)], "y": np.ones(1000)}).frame) == 1000


def test_levels_spread_over_parts_are_counted_together():
    def batches():
        for start in range(0, 140000, 14000):
            yield {"name": [f"n{i // 100}" for i in range(start, start + 14000)], "y": np.ones(14000)}

    class Columns:
        columns = ()

        def add(self, batch):
            self.columns = tuple({**dict.fromkeys(self.columns), **dict.fromkeys(batch.columns)})

        def merge(self, other):
            self.columns = tuple({**dict.fromkeys(self.columns), **dict.fromkeys(other.columns)})

    source = open_source(batches)
    with pytest.raises(ValueError, match="'name' is a factor of more than 1000 levels"):
        one_pass(source, make_plan(source, "y"), Columns)


def test_rows_of_a_cluster_share_a_block_wherever_they_lie(read):
    generator = np.random.default_rng(0)
    clusters = generator.integers(0, 200, 80000)
    frame = read({"a": generator.normal(size=80000), "c": clusters, "y": np.ones(80000)}, clusters="c").frame
    assert "c" not in frame
    assert (frame.groupby("<c>")["<block>"].nunique() == 1).all()
    assert frame["<block>"].nunique() == 20
    # A gap makes the column one of fractions; its labels stay what they were.
    gaps = pd.array(np.where(np.arange(80000) == 5, -1, clusters), dtype="Int64")
    gaps[5] = pd.NA
    again = read({"a": np.ones(80000), "c": gaps, "y": np.ones(80000)}, clusters="c").frame
    assert again["<block>"].tolist() == frame["<block>"].drop(index=5).tolist()


def test_text_clusters_and_missing_ones(read):
    kept = read({"a": [1.0, 2.0, 3.0], "c": ["x", None, "x"], "y": [1, 2, 3]}, clusters="c", features=["a"])
    assert kept.frame["<c>"].tolist() == ["x", "x"]
    assert kept.frame["<block>"].nunique() == 1
    assert kept.missing_by == {"c": 1}


def test_a_fold_column_decides_the_fold_and_halves_remain(read):
    labels = np.random.default_rng(0).permutation(np.repeat([2019, 2020, 2021], 400))
    frame = read({"a": np.ones(1200), "f": labels, "y": np.ones(1200)}, fold_column="f").frame
    assert ((frame["<block>"] % 3) == (labels - 2019)).all()
    assert frame["<block>"].nunique() == 24
    assert frame["<block>"].value_counts().min() > 15


def test_folds_of_a_source_that_is_read_once_must_be_numbered():
    def batches(labels):
        yield {"a": [None, 1.0, 2.0], "f": [0, *labels], "y": [0.0, 1.0, 2.0]}

    source = open_source(batches([0, 1]))
    batch = source.peek(make_plan(source, "y", fold_column="f", folds=2))
    assert (batch.blocks % 2).tolist() == [0, 1]
    source = open_source(batches([1, 2]))
    with pytest.raises(ValueError, match=r"'f' is 2 in row 3 of the iterator, but folds are 0, 1: number them so"):
        source.peek(make_plan(source, "y", fold_column="f", folds=2))
