import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.linalg.block_diagonal import BlockDiagonal, Grouped
from lsdr.linalg.dense import Dense
from lsdr.linalg.low_rank import LowRank


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
def test_blocks_are_side_by_side(agrees, shapes):
    blocks = [randn(*shape, seed=i) for i, shape in enumerate(shapes)]
    agrees(BlockDiagonal(*map(Dense, blocks)), scipy.linalg.block_diag(*blocks))


def test_blocks_of_other_kinds_and_types():
    up, down, other = randn(3, 1), randn(1, 2), randn(2, 2, dtype=torch.float32)
    operator = BlockDiagonal(LowRank(up, down), Dense(other))
    assert operator.dtype == torch.float64
    dense = torch.from_numpy(scipy.linalg.block_diag(up @ down, other.double()))
    x, y = torch.ones(4, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(operator.matvec(x), dense @ x, rtol=0, atol=1e-5)
    torch.testing.assert_close(operator.adjoint(y), y @ dense, rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_a_grouped_weight_is_its_blocks(agrees, groups, m, n, double):
    weight = randn(groups * m, n, dtype=torch.float64 if double else torch.float32)
    agrees(Grouped(weight, groups), scipy.linalg.block_diag(*weight.chunk(groups)))


def test_a_grouped_kernel_is_what_a_grouped_convolution_does_to_one_patch(agrees):
    layer = torch.nn.Conv2d(4, 6, 3, groups=2, bias=False).double()
    with torch.no_grad():
        dense = layer(torch.eye(36, dtype=torch.float64).reshape(36, 4, 3, 3)).flatten(1).T
    agrees(Grouped(layer.weight, 2), dense)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_grouped_storage_is_widened_and_never_copied(agrees, dtype):
    weight = randn(4, 3, dtype=torch.float32).to(dtype)
    operator = Grouped(weight, 2)
    assert operator.weight.data_ptr() == weight.data_ptr()
    agrees(operator, scipy.linalg.block_diag(*weight.float().chunk(2)))


def test_autocast_stays_out():
    operator = Grouped(torch.full((2, 1), 1.001), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert operator.matvec(torch.ones(2))[0].item() == pytest.approx(1.001, rel=1e-6)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups):
    with pytest.raises(ValueError, match="must divide"):
        Grouped(torch.ones(4, 2), groups)
