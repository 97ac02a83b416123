import numpy as np
import pytest

from lsdr.regression.batch import Batch, Tally, rows_of

COLUMNS = (("a", ""), ("b", ""))


def batch(n=4, weights=None, clusters=None, blocks=None, **options):
    blocks = np.zeros(n, np.intp) if blocks is None else np.asarray(blocks)
    weights = None if weights is None else np.asarray(weights, float)
    return Batch(COLUMNS, np.ones((n, 2)), np.ones(n), weights, clusters, blocks, **options)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("3 columns, but 2 names", lambda: Batch(COLUMNS, np.ones((4, 3)), np.ones(4), None, None, np.zeros(4, int))),
        (
            r"y must have shape \(4,\)",
            lambda: Batch(COLUMNS, np.ones((4, 2)), np.ones(3), None, None, np.zeros(4, int)),
        ),
        ("1 columns, but 2 names", lambda: Batch(COLUMNS, (np.ones(4),), np.ones(4), None, None, np.zeros(4, int))),
        (
            r"a column must have shape \(4,\)",
            lambda: Batch(COLUMNS, (np.ones(4), np.ones(3)), np.ones(4), None, None, np.zeros(4, int)),
        ),
        (r"weights must have shape \(4,\)", lambda: batch(weights=[1, 2])),
        (r"clusters must have shape \(4,\)", lambda: batch(clusters=np.array(["a"]))),
        (r"blocks must have shape \(4,\)", lambda: batch(blocks=[0, 1])),
    ],
)
def test_shapes_are_checked(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def test_columns_one_by_one_are_a_matrix_too():
    x = np.arange(8.0).reshape(4, 2)
    for values in (x, tuple(x.T)):
        found = Batch(COLUMNS, values, np.ones(4), None, None, np.zeros(4, int))
        np.testing.assert_array_equal(found.x, x)
        np.testing.assert_array_equal(rows_of(found.values, np.array([3, 1])), x[[3, 1]])


def test_a_tally_counts_rows_weights_and_missing_values():
    tally, other = Tally(3), Tally(3)
    tally.add(batch(blocks=[0, 0, 2, 2], weights=[0.5, 0, 2, 3], missing=2, missing_by={"a": 1, "y": 2}))
    assert (tally.rows.tolist(), tally.weights.tolist()) == ([1, 0, 2], [0.5, 0, 5])
    other.add(batch(blocks=[1, 2, 2, 2], missing=1, missing_by={"y": 1}))
    assert (other.rows.tolist(), other.weights.tolist()) == ([0, 1, 3], [0, 1, 3])
    tally.merge(other)
    assert (tally.rows.tolist(), tally.weights.tolist()) == ([1, 1, 5], [0.5, 1, 8])
    assert (tally.missing, tally.missing_by) == (3, {"a": 1, "y": 3})
    assert (other.missing, other.missing_by) == (1, {"y": 1})
