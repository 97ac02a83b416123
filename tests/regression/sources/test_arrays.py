import numpy as np
import pytest

from lsdr.regression.plan import make_plan
from lsdr.regression.sources.arrays import open_arrays
from lsdr.regression.sources.open import open_source


def test_a_pair_of_arrays_is_read_whole_and_in_order(read):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(70000, 3)), generator.normal(size=70000)
    frame = read((x, y)).frame
    assert np.array_equal(frame[["x0", "x1", "x2"]].to_numpy(), x)
    assert np.array_equal(frame["<y>"], y)


def test_float64_rows_are_not_copied():
    x, y = np.ones((100, 4)), np.ones(100)
    source = open_arrays(x, y)
    batch = source.peek(make_plan(source, "y"))
    assert np.shares_memory(batch.x, x)
    assert np.shares_memory(batch.y, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint64, bool])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_types_and_orders_become_float64(read, dtype, order):
    x = np.asarray(np.arange(12).reshape(4, 3) % 5, dtype=dtype, order=order)
    frame = read((x, np.arange(4))).frame
    assert np.array_equal(frame[["x0", "x1", "x2"]].to_numpy(), x.astype(float))


def test_a_choice_of_columns_keeps_the_order_asked_for(read):
    x = np.arange(6.0).reshape(2, 3)
    frame = read((x, np.ones(2)), features=["x2", "x0"]).frame
    assert list(frame.columns[:2]) == ["x2", "x0"]
    assert frame["x2"].tolist() == [2.0, 5.0]


def test_a_column_of_the_matrix_can_be_a_factor_and_a_vector_a_feature(read):
    x = np.array([[1.0, 3.0], [2.0, 5.5], [4.0, 3.0]])
    source = open_arrays(x, np.ones(3), names=["a", "b"], c=np.array([7.0, 8.0, 9.0]))
    frame = read(source, features=["b", "c", "a"], categorical=["b"]).frame
    assert list(frame.columns[:4]) == ["b[3]", "b[5.5]", "c", "a"]
    assert frame["b[3]"].tolist() == [1.0, 0.0, 1.0]
    assert frame["c"].tolist() == [7.0, 8.0, 9.0]


def test_weights_clusters_and_folds_go_beside(read):
    groups = np.array(["p", "q", "p", "r"])
    source = open_arrays(
        np.arange(4.0)[:, None], np.ones(4), w=np.array([0.0, 1.0, 2.0, 3.0]), g=groups, f=np.array([1, 0, 1, 0])
    )
    frame = read(source, features=["x0"], weights="w", clusters="g", fold_column="f").frame
    assert frame["<w>"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert frame["<c>"].tolist() == groups.tolist()
    assert (frame["<block>"] % 2).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones(3), np.ones(3), r"x must have shape \(n, p\), got \(3,\)"),
        (np.ones((3, 1)), np.ones(2), r"y must have shape \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        open_source((x, y))


def test_names_must_fit():
    with pytest.raises(ValueError, match="2 columns, but 1 names"):
        open_arrays(np.ones((3, 2)), np.ones(3), names=["a"])
    with pytest.raises(ValueError, match=r"same name: \['a'\]"):
        open_arrays(np.ones((3, 2)), np.ones(3), names=["a", "a"])


def test_sparse_and_complex_matrices_are_refused():
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match=r"x is sparse; give a dense array"):
        open_source((csr_array(np.eye(3)), np.ones(3)))
    with pytest.raises(TypeError, match="x must hold real numbers"):
        open_source((np.eye(3) * 1j, np.ones(3)))


def test_no_rows_are_no_batch():
    source = open_source((np.ones((0, 2)), np.ones(0)))
    assert source.peek(make_plan(source, "y")) is None
