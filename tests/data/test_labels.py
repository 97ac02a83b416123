import numpy as np
import pyarrow as pa
import pytest

from lsdr.data.labels import labels_from_arrow, number_labels


def test_declared_names_keep_their_numbers_and_other_numbers_are_missing():
    column = pa.chunked_array([[2, -1, -5], [3, None, 0]])
    numbers, names = labels_from_arrow(column, ("a", "b", "c"))
    assert numbers.tolist() == [2, -1, -1, -1, -1, 0]
    assert names == ("a", "b", "c")
    assert labels_from_arrow(pa.chunked_array([[-1, -1]]), ("a", "b")) == (None, None)


@pytest.mark.parametrize(
    ("values", "expected", "names"),
    [([30, None, 4, 30], [1, -1, 0, 1], ("4", "30")), (["b", None, "a", "b"], [1, -1, 0, 1], ("a", "b"))],
)
def test_other_labels_are_numbered_in_order(values, expected, names):
    for column in (pa.chunked_array([values]), pa.chunked_array([values[:1], values[1:]]).dictionary_encode()):
        numbers, found = labels_from_arrow(column, None)
        assert numbers.tolist() == expected
        assert found == names


def test_one_class_is_none():
    assert number_labels(np.array([5, 5, 5])) == (None, None)
    assert number_labels(np.array([])) == (None, None)
