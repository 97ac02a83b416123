import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.linalg import hadamard
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.low_rank import LowRank


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def factors(m, n, r1, r2, dtype=torch.float64):
    return [randn(*shape, seed=i, dtype=dtype) for i, shape in enumerate([(m, r1), (r1, n), (m, r2), (r2, n)])]


@settings(max_examples=80, deadline=None)
@given(
    *[st.integers(1, 9)] * 2, *[st.integers(0, 3)] * 2, st.sampled_from([1.0, -2.0, 0.0]), st.booleans(), st.booleans()
)
def test_products_are_those_of_the_elementwise_product(agrees, m, n, r1, r2, scale, double, small):
    up1, down1, up2, down2 = factors(m, n, r1, r2, torch.float64 if double else torch.float32)
    dense = scale * 0.5 * 3 * (up1.numpy() @ down1.numpy()) * (up2.numpy() @ down2.numpy())
    kept, hadamard._WORKING_BYTES = hadamard._WORKING_BYTES, 1 if small else hadamard._WORKING_BYTES
    try:
        agrees(Hadamard(LowRank(up1, down1, 0.5), LowRank(up2, down2, 3.0), scale), dense)
        agrees(Hadamard(LowRank(up1, down1, 0.5), LowRank(up2, down2, 3.0), scale).low_rank(), dense)
    finally:
        hadamard._WORKING_BYTES = kept


@pytest.mark.parametrize(("rank", "expected"), [(1, "ranks"), (6, "rows")])
def test_the_cheaper_way_is_taken_and_both_agree(monkeypatch, rank, expected):
    up1, down1, up2, down2 = factors(12, 10, rank, rank)
    operator, x, y = Hadamard(LowRank(up1, down1), LowRank(up2, down2)), randn(40, 10), randn(40, 12)
    taken = []
    for way in ("ranks", "rows"):
        kept = getattr(Hadamard, f"_by_{way}")
        monkeypatch.setattr(
            Hadamard, f"_by_{way}", lambda self, *given, way=way, kept=kept: taken.append(way) or kept(self, *given)
        )
    dense = (up1 @ down1) * (up2 @ down2)
    torch.testing.assert_close(operator.matvec(x), x @ dense.T)
    torch.testing.assert_close(operator.adjoint(y), y @ dense)
    assert taken == [expected] * 2
    for vectors, transposed, product in ((x, False, x @ dense.T), (y, True, y @ dense)):
        torch.testing.assert_close(operator._by_ranks(vectors, transposed), product)
        torch.testing.assert_close(operator._by_rows(vectors, transposed), product)


def test_the_tucker_form_of_a_loha_is_two_factored_kernels(agrees):
    """As LyCORIS rebuilds it: einsum("i j k l, j r, i p -> p r k l", t, w_b, w_a) for each, then elementwise."""
    parts, kernels = [], []
    for seed in (0, 3):
        core, w_a, w_b = randn(2, 2, 3, 3, seed=seed), randn(2, 4, seed=seed + 1), randn(2, 5, seed=seed + 2)
        kernels.append(torch.einsum("ijkl,jr,ip->prkl", core, w_b, w_a))
        parts.append(LowRank.with_core(w_a.T, core, w_b))
    agrees(Hadamard(*parts, 0.25), 0.25 * (kernels[0] * kernels[1]).flatten(1))


def test_the_product_is_never_held():
    """64 MiB at a time of a matrix of 1 TiB."""
    ones = LowRank(torch.ones(1 << 19, 1), torch.ones(1, 1 << 19))
    assert Hadamard(ones, ones).matvec(torch.ones(1 << 19))[0].item() == 1 << 19


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_small_storage(agrees, dtype):
    stored = [x.to(dtype) for x in factors(5, 6, 2, 2, torch.float32)]
    up1, down1, up2, down2 = (x.double().numpy() for x in stored)
    agrees(Hadamard(LowRank(*stored[:2]), LowRank(*stored[2:])), (up1 @ down1) * (up2 @ down2))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        Hadamard(LowRank(torch.ones(2, 1), torch.ones(1, 3)), LowRank(torch.ones(3, 1), torch.ones(1, 3)))


def test_rank_zero_is_the_zero_operator(agrees):
    none = LowRank(torch.ones(3, 0), torch.ones(0, 4))
    agrees(Hadamard(none, LowRank(torch.ones(3, 1), torch.ones(1, 4))), np.zeros((3, 4)))
