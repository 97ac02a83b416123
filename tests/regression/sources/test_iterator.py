import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lsdr.regression.gram import Gram
from lsdr.regression.one_pass import one_pass
from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source

ROWS = 70000
A = np.arange(ROWS) * 1.0
Y = np.random.default_rng(0).normal(size=ROWS)


def cut(size, make):
    return [make(slice(start, start + size)) for start in range(0, ROWS, size)]


KINDS = {
    "dicts": lambda rows: {"a": A[rows], "y": Y[rows]},
    "pandas": lambda rows: pd.DataFrame({"a": A[rows], "y": Y[rows]}),
    "polars": lambda rows: pl.DataFrame({"a": A[rows], "y": Y[rows]}),
    "arrow": lambda rows: pa.table({"a": A[rows], "y": Y[rows]}),
    "record batches": lambda rows: pa.record_batch({"a": A[rows], "y": Y[rows]}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [999, 40000])
def test_batches_of_any_kind_and_size_are_the_same_rows_and_blocks(read, kind, size):
    whole = read({"a": A, "y": Y}).frame
    for given in (cut(size, KINDS[kind]), lambda: iter(cut(size, KINDS[kind])), iter(cut(size, KINDS[kind]))):
        frame = read(given).frame
        assert np.array_equal(frame["a"], A)
        assert np.array_equal(frame["<y>"], Y)
        assert frame["<block>"].tolist() == whole["<block>"].tolist()


def test_pairs_are_named_like_arrays(read):
    frame = read([(np.c_[A[:3], A[:3] + 1], Y[:3]), [np.c_[A[3:5], A[3:5]], Y[3:5].tolist()]]).frame
    assert frame["x0"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert frame["x1"].tolist() == [1.0, 2.0, 3.0, 3.0, 4.0]


def test_an_iterator_can_be_looked_at_but_read_only_once():
    pulled = []

    def batches():
        for batch in cut(1000, KINDS["dicts"]):
            pulled.append(1)
            yield batch

    source = open_source(batches())
    assert not source.repeatable
    plan = make_plan(source, "y")
    first = source.peek(plan)
    again = source.peek(plan)
    assert np.array_equal(first.x, again.x)
    assert len(pulled) <= 34
    gram = one_pass(source, plan, lambda: Gram(plan.blocks))
    assert gram.rows.sum() == ROWS
    assert len(pulled) == 70
    with pytest.raises(ValueError, match=r"the iterator can be read only once.*pass a function that returns a new"):
        one_pass(source, plan, lambda: Gram(plan.blocks))


def test_a_function_is_called_for_every_pass():
    source = open_source(lambda: iter(cut(1000, KINDS["dicts"])))
    plan = make_plan(source, "y")
    assert source.repeatable
    for _ in range(2):
        assert one_pass(source, plan, lambda: Gram(plan.blocks)).rows.sum() == ROWS


def test_a_long_stream_takes_bounded_memory():
    batch = {"a": np.ones(50000), "b": np.zeros(50000), "y": np.arange(50000.0)}
    count = 40
    source = open_source(batch for _ in range(count))
    plan = make_plan(source, "y")
    one_pass(open_source([batch]), plan, lambda: Gram(plan.blocks))
    tracemalloc.start()
    gram = one_pass(source, plan, lambda: Gram(plan.blocks), workers=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert gram.rows.sum() == count * 50000
    assert peak < 25e6  # all of it is 48e6


def test_types_may_differ_between_batches(read):
    frame = read([{"a": [1, 2], "y": [1, 2]}, {"a": [0.5, None], "y": [3.0, 4.0]}, {"a": [None], "y": [1]}]).frame
    assert frame["a"].tolist() == [1.0, 2.0, 0.5]


def test_text_among_numbers_in_a_later_batch_is_refused(read):
    with pytest.raises(ValueError, match="'a' must hold numbers, but row 32769 of the list has text: 'x'"):
        read([{"a": np.ones(2**15), "y": np.ones(2**15)}, {"a": ["x"], "y": [1.0]}])
    with pytest.raises(ValueError, match=r"the list changes the kind of a column between rows 1 and 3 .*Field a"):
        read([{"a": np.ones(2), "y": np.ones(2)}, {"a": ["x"], "y": [1.0]}])


def test_a_column_that_stops_coming_is_named(read):
    with pytest.raises(ValueError, match="the batch after row 2 of the list has no column 'a'"):
        read([{"a": [1, 2], "y": [1, 2]}, {"y": [1]}])


@pytest.mark.parametrize("nothing", [[], iter([]), lambda: iter([])])
def test_no_batch_at_all_is_refused(nothing):
    with pytest.raises(ValueError, match="gave no batch: nothing to read"):
        open_source(nothing)


def test_batches_of_no_rows_are_skipped(read):
    empty = {"a": np.ones(0), "y": np.ones(0)}
    assert len(read([empty, {"a": [1.0], "y": [1.0]}, empty]).frame) == 1
    source = open_source([empty])
    assert source.peek(make_plan(source, "y")) is None


def test_an_error_of_the_iterator_comes_through():
    def batches():
        yield {"a": [1.0], "y": [1.0]}
        raise OSError("the line is dead")

    source = open_source(batches())
    with pytest.raises(OSError, match="the line is dead"):
        one_pass(source, make_plan(source, "y"), lambda: Gram(20))


def test_what_is_no_batch_is_named(read):
    with pytest.raises(TypeError, match="a batch of the list is a int, which is no table"):
        read([3])
