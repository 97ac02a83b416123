import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.linalg.dense import Dense
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 5)] * 4, st.sampled_from([1.0, -2.0, 0.0]), st.booleans())
def test_products_are_numpys_kron(agrees, ma, na, mb, nb, scale, double):
    dtype = torch.float64 if double else torch.float32
    a, b = randn(ma, na, dtype=dtype), randn(mb, nb, seed=1, dtype=dtype)
    agrees(Kronecker(a, b, scale), scale * np.kron(a.numpy(), b.numpy()))


def test_a_factor_may_be_an_operator_and_types_may_differ(agrees):
    up, down, b = randn(3, 1), randn(1, 2), randn(2, 4, dtype=torch.float32)
    operator = Kronecker(LowRank(up, down, 2.0), Dense(b))
    assert operator.dtype == torch.float64
    dense = np.kron(2.0 * up.numpy() @ down.numpy(), b.numpy())
    assert float((operator.matrix() - torch.from_numpy(dense)).abs().max()) < 1e-5
    agrees(Kronecker(LowRank(up, down, 2.0), b.double()), dense)


def test_a_lokr_of_a_convolution_is_the_kron_of_the_kernels_reshaped(agrees):
    w1, w2 = randn(2, 3), randn(2, 2, 3, 3, seed=1)
    kernel = torch.kron(w1[:, :, None, None].contiguous(), w2)  # as LyCORIS builds it
    agrees(Kronecker(w1, w2, 0.5), 0.5 * kernel.flatten(1))


def test_a_lokr_with_a_tucker_core(agrees):
    w1, core, w2_a, w2_b = randn(2, 2), randn(2, 3, 3, 3, seed=1), randn(2, 4, seed=2), randn(3, 5, seed=3)
    w2 = torch.einsum("ijkl,ip,jr->prkl", core, w2_a, w2_b).contiguous()
    kernel = torch.kron(w1[:, :, None, None].contiguous(), w2)
    agrees(Kronecker(w1, LowRank.with_core(w2_a.T, core, w2_b)), kernel.flatten(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_small_storage(agrees, dtype):
    a, b = randn(2, 3, dtype=torch.float32).to(dtype), randn(4, 2, dtype=torch.float32).to(dtype)
    agrees(Kronecker(a, b), np.kron(a.float().numpy(), b.float().numpy()))


def test_autocast_stays_out():
    operator, x = Kronecker(randn(3, 3, dtype=torch.float32), randn(4, 4, dtype=torch.float32)), torch.ones(12)
    plain = operator.matvec(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(operator.matvec(x), plain)
