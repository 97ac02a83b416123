import numpy as np
import pytest
import torch

from lsdr.linalg.combine import Product, Scaled, Sum
from lsdr.linalg.dense import Dense
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import Adjoint


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


A, B, C = randn(4, 3), randn(3, 5, seed=1), randn(5, 2, seed=2)


def test_a_sum_is_the_sum_of_the_matrices(agrees):
    other, up, down = randn(4, 3, seed=5), randn(4, 1, seed=6), randn(1, 3, seed=7)
    agrees(Sum(Dense(A)), A)
    agrees(Sum(Dense(A), Dense(other), LowRank(up, down, 2.0)), A + other + 2.0 * up @ down)


def test_a_product_is_the_product_of_the_matrices_in_their_order(agrees):
    agrees(Product(Dense(A)), A)
    agrees(Product(Dense(A), Dense(B), Dense(C)), A @ B @ C)
    agrees(Product(Adjoint(Dense(C)), Adjoint(Dense(B))), (B @ C).T)


@pytest.mark.parametrize("factor", [2, -0.5, 0.0])
def test_a_multiple(agrees, factor):
    agrees(Scaled(Dense(A), factor), factor * A)


def test_the_adjoint_of_each(agrees):
    agrees(Adjoint(Scaled(Dense(A), 3.0)), 3 * A.T)
    agrees(Adjoint(Product(Dense(A), Dense(B))), B.T @ A.T)
    agrees(Adjoint(Sum(Dense(A), Dense(A))), 2 * A.T)


def test_parts_of_both_types_make_a_double_operator_with_each_part_in_its_own():
    single = Dense(A.float())
    for operator, dense in (
        (Sum(single, Dense(A)), 2 * A),
        (Sum(Dense(A), single), 2 * A),
        (Product(single, Dense(B)), A @ B),
        (Product(Dense(A), Dense(B.float())), A @ B),
        (Kronecker(single, Dense(B)), torch.from_numpy(np.kron(A.numpy(), B.numpy()))),
    ):
        assert operator.dtype == torch.float64
        x, y = torch.ones(operator.shape[1], dtype=torch.float64), torch.ones(operator.shape[0], dtype=torch.float64)
        for found, true in (
            (operator.matvec(x), dense @ x),
            (operator.adjoint(y), y @ dense),
            (operator.matrix(), dense),
        ):
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-5)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        Sum(Dense(A), Dense(B))
    with pytest.raises(ValueError, match="as many inputs"):
        Product(Dense(A), Dense(C))
    for kind in (Sum, Product):
        with pytest.raises(ValueError, match="at least one"):
            kind()
    with pytest.raises(ValueError, match="one device"):
        Sum(Dense(A), Dense(torch.ones(4, 3, device="meta")))
