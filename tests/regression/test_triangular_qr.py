import threading

import numpy as np
import pytest

from lsdr.regression.triangular_qr import triangular_qr


def square(rows):
    return rows.T @ rows


@pytest.mark.parametrize("k", [1, 2, 5, 16, 17, 40, 70])
@pytest.mark.parametrize("m", [0, 1, 3, 100])
def test_rows_under_a_triangle(k, m):
    generator = np.random.default_rng(0)
    upper = np.triu(generator.normal(size=(k, k)))
    rows = generator.normal(size=(m, k))
    # What is below the diagonal is neither read nor written.
    triangle = np.asfortranarray(upper + np.tril(np.full((k, k), np.nan), -1))
    triangular_qr(triangle, rows.copy(order="F"))
    np.testing.assert_allclose(
        square(np.triu(np.nan_to_num(triangle))), square(upper) + square(rows), rtol=1e-12, atol=1e-12
    )
    assert np.isnan(triangle[np.tril_indices(k, -1)]).all()


@pytest.mark.parametrize("k", [1, 5, 17, 70])
def test_a_triangle_under_a_triangle(k):
    generator = np.random.default_rng(1)
    one, other = np.triu(generator.normal(size=(2, k, k)))
    triangle = one.copy(order="F")
    triangular_qr(triangle, np.asfortranarray(other + np.tril(np.full((k, k), np.nan), -1)), triangular=True)
    np.testing.assert_allclose(square(triangle), square(one) + square(other), rtol=1e-12, atol=1e-12)


def test_views_of_larger_arrays():
    generator = np.random.default_rng(2)
    lower, room = np.zeros((3, 4, 4)), np.full((50, 4), np.nan, order="F")
    rows = generator.normal(size=(7, 4))
    room[:7] = rows
    triangular_qr(lower[1].T, room[:7])
    np.testing.assert_allclose(lower[1] @ lower[1].T, square(rows), rtol=1e-12)
    assert not lower[[0, 2]].any()
    assert np.isnan(room[7:]).all()


def test_other_threads_run_meanwhile():
    """Two threads that each work on a triangle of their own find what one after the other finds."""
    rows = np.random.default_rng(3).normal(size=(2, 20000, 30))
    found = [np.zeros((30, 30), order="F") for _ in range(4)]
    threads = [threading.Thread(target=triangular_qr, args=(found[i], rows[i].copy(order="F"))) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        triangular_qr(found[2 + i], rows[i].copy(order="F"))
        np.testing.assert_array_equal(found[i], found[2 + i])
