import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.linalg import exact
from lsdr.linalg import frobenius as norms
from lsdr.linalg.block_diagonal import BlockDiagonal, Grouped
from lsdr.linalg.circular import Circular
from lsdr.linalg.combine import Product, Scaled, Sum
from lsdr.linalg.convolution import Convolution
from lsdr.linalg.dense import Dense
from lsdr.linalg.exact import exact_singular_values
from lsdr.linalg.frobenius import frobenius
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import Adjoint, LinearOperator
from lsdr.linalg.widen import rows, widened


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def low_rank(m, r, n, seed=0, dtype=torch.float64):
    return LowRank(randn(m, r, seed=seed, dtype=dtype), randn(r, n, seed=seed + 50, dtype=dtype), 0.5)


class Opaque(LinearOperator):
    """Of a kind that nothing knows."""

    def __init__(self, weight):
        super().__init__(tuple(weight.shape), weight.dtype, weight.device)
        self.weight = weight

    def matvec(self, x):
        return x @ self.weight.T

    def adjoint(self, y):
        return y @ self.weight


def every_kind(dtype):
    def dense(m, n, seed=0):
        return Dense(randn(m, n, seed=seed, dtype=dtype))

    kernel = randn(4, 2, 3, 3, dtype=dtype)
    return {
        "dense": (dense(5, 7), "in float64"),
        "adjoint": (Adjoint(dense(5, 7)), "in float64"),
        "scaled": (Scaled(dense(5, 7), -2.5), "in float64"),
        "low rank": (low_rank(8, 2, 6, dtype=dtype), "low rank"),
        "full rank": (low_rank(4, 9, 6, dtype=dtype), "written out"),
        "rank 0": (low_rank(4, 0, 6, dtype=dtype), "low rank"),
        "kronecker": (Kronecker(dense(3, 2), low_rank(4, 1, 3, dtype=dtype), -2.0), "Kronecker"),
        "kronecker of crossed shapes": (Kronecker(dense(5, 1), dense(2, 4)), "Kronecker"),
        "thin hadamard": (Hadamard(low_rank(12, 2, 9, 1, dtype), low_rank(12, 2, 9, 2, dtype), 2.0), "low rank"),
        "full hadamard": (Hadamard(low_rank(6, 2, 5, 1, dtype), low_rank(6, 3, 5, 2, dtype)), "written out"),
        "blocks": (BlockDiagonal(dense(2, 5), dense(4, 1), low_rank(3, 1, 3, dtype=dtype)), "in float64"),
        "grouped": (Grouped(randn(6, 5, dtype=dtype), 3), "in float64"),
        "base and adapter": (Sum(dense(6, 5), low_rank(6, 1, 5, dtype=dtype)), "written out"),
        "thin product": (Product(Adjoint(dense(2, 9)), dense(2, 3, 1), dense(3, 8, 2)), "low rank"),
        "full product": (Product(dense(5, 4), dense(4, 6)), "written out"),
        "product of one": (Product(dense(5, 4)), "written out"),
        "convolution": (Convolution(kernel, (4, 3), padding=1, groups=2), "written out"),
        "transposed": (Convolution(kernel, (2, 3), stride=2, padding=1, transposed=True), "written out"),
        "mirrored": (Convolution(kernel, (4, 3), padding=1, padding_mode="reflect"), "written out"),
        "patches": (Convolution(kernel, (6, 4), stride=3, groups=2), "in float64"),
        "spread patches": (Convolution(kernel, (2, 2), stride=(3, 4), transposed=True), "in float64"),
        "torus": (Circular(kernel, (4, 3)), "circular"),
        "small torus": (Circular(kernel, (2, 2)), "circular"),
        "transposed torus": (Circular(kernel, (2, 3), stride=2, groups=2, transposed=True), "circular"),
        "opaque": (Opaque(randn(4, 6, dtype=dtype)), "written out"),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", every_kind(torch.float64))
def test_values_bounds_and_norm_of_every_kind_are_those_of_its_matrix(kind, dtype):
    operator, way = every_kind(dtype)[kind]
    wide = widened(operator)
    assert wide.dtype == torch.float64 or kind == "opaque"
    matrix = wide.matrix().double()
    true = torch.linalg.svdvals(matrix)
    scale = max(1.0, float(true[0]))
    rounding = (1e-13 if operator.dtype == torch.float64 or kind != "opaque" else 1e-6) * scale
    found = exact_singular_values(operator)
    assert way in found.method
    assert ("written out" in found.method) == (way == "written out")
    # Matrices of float32 are squared: what is below 3e-8 of the largest is not told from zero.
    close = 1e-12 if operator.dtype == torch.float64 else 2e-7
    torch.testing.assert_close(found.values.double(), true, rtol=0, atol=close * scale)
    assert float(found.upper[0] - found.lower[0]) < 100 * close * scale
    assert bool((found.lower <= true + rounding).all())
    assert bool((true <= found.upper + rounding).all())
    assert bool((found.lower <= found.values).all())
    assert bool((found.values <= found.upper).all())
    assert frobenius(operator) == pytest.approx(float(matrix.norm()), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(rows(operator, 1, 3), matrix[1:3], rtol=0, atol=10 * rounding)
    torch.testing.assert_close(matrix.float(), operator.matrix().float(), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", every_kind(torch.float64))
def test_every_kind_of_zeros_has_zeros(kind):
    operator = Scaled(every_kind(torch.float32)[kind][0], 0.0)
    found = exact_singular_values(operator)
    assert torch.equal(found.values, torch.zeros_like(found.values))
    assert float(found.upper[0]) < 1e-30
    assert frobenius(operator) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 9), st.integers(0, 99))
def test_low_rank_at_every_rank(m, r, n, seed):
    operator = low_rank(m, r, n, seed)
    true = torch.linalg.svdvals(operator.matrix())
    found = exact_singular_values(operator)
    torch.testing.assert_close(found.values, true, rtol=0, atol=1e-12)
    assert float(found.values[min(m, n, r) :].sum()) == 0.0 or r >= min(m, n)
    assert frobenius(operator) == pytest.approx(float(true.norm()), rel=1e-12, abs=1e-14)


def test_factors_that_cancel_have_bounds_that_say_so():
    """The norm of the product is 1e-10 of that of its factors: its relative accuracy is less, and the bounds hold."""
    up = torch.cat([randn(9, 2), randn(9, 2)], 1)
    down = torch.cat([randn(2, 8, seed=1), -randn(2, 8, seed=1)]) + 1e-10 * randn(4, 8, seed=2)
    reference = up[:, :2].numpy().astype("longdouble") @ (down[:2].numpy().astype("longdouble") + down[2:].numpy())
    true = torch.linalg.svdvals(torch.from_numpy(reference.astype("float64")))
    for operator in (LowRank(up, down), Sum(LowRank(up[:, :2], down[:2]), LowRank(up[:, 2:], down[2:]))):
        found = exact_singular_values(operator)
        assert bool((found.lower <= true).all())
        assert bool((true <= found.upper + 1e-20).all())  # the reference's own zeros are 1e-26
        assert 0 < float(found.upper[0] - found.lower[0]) < 1e-11


def test_a_lora_far_larger_than_memory():
    up, down = randn(200_000, 3, dtype=torch.float32), randn(3, 150_000, dtype=torch.float32)
    operator = LowRank(up, down)
    found = exact_singular_values(operator)
    small = torch.linalg.eigvals((up.double().T @ up.double()) @ (down.double() @ down.double().T)).real
    torch.testing.assert_close(found.values[:3], small.sort(descending=True).values.sqrt(), rtol=1e-10, atol=0)
    assert frobenius(operator) == pytest.approx(float(small.sum()) ** 0.5, rel=1e-10)


def test_the_query_key_form_of_a_head_is_never_written_out(monkeypatch):
    monkeypatch.setattr(exact, "_LARGEST_ENTRIES", 0)
    query, key = randn(4, 40), randn(4, 40, seed=1)
    found = exact_singular_values(Product(Adjoint(Dense(query)), Dense(key)))
    true = torch.linalg.svdvals(query.T @ key)
    torch.testing.assert_close(found.values, true, rtol=0, atol=1e-11)


def test_what_is_too_large_to_write_out_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(exact, "_LARGEST_ENTRIES", 29)
    exact_singular_values(Dense(randn(5, 6)))  # is written out already
    with pytest.raises(ValueError, match="lanczos"):
        exact_singular_values(Sum(Dense(randn(5, 6)), Dense(randn(5, 6))))


def test_the_norm_of_a_sum_takes_blocks_of_rows(monkeypatch):
    operator = Sum(Dense(randn(7, 5)), low_rank(7, 2, 5), Scaled(Dense(randn(7, 5, seed=3)), 2.0))
    asked = []
    monkeypatch.setattr(norms, "_ROW_BYTES", 100)
    monkeypatch.setattr(norms, "rows", lambda op, start, stop: asked.append((start, stop)) or rows(op, start, stop))
    assert frobenius(operator) == pytest.approx(float(operator.matrix().norm()), rel=1e-13)
    assert asked == [(0, 2), (2, 4), (4, 6), (6, 7)]


def test_a_large_convolutions_norm_is_counted_tap_by_tap():
    weight = randn(2, 3, 3, 3)
    operator = Convolution(weight, (4000, 5000), padding=2)  # 4e7 x 6e7
    assert operator.tap_counts() is not None
    whole = float(weight.square().sum()) * 4000 * 5000
    assert frobenius(operator) == pytest.approx(whole**0.5, rel=1e-3)
    small = Convolution(weight, (4, 2), padding=2, dilation=2)
    assert frobenius(small) == pytest.approx(float(small.matrix().norm()), rel=1e-13)


def test_kernels_of_one_pixel_are_decomposed_once(monkeypatch):
    monkeypatch.setattr(exact, "_LARGEST_ENTRIES", 0)
    weight = randn(3, 4, 1, 1)
    found = exact_singular_values(Convolution(weight, (20, 30)))
    each = torch.linalg.svdvals(weight.flatten(1))
    torch.testing.assert_close(found.values, each.repeat_interleave(600), rtol=0, atol=1e-13)


def test_a_patch_of_which_one_pixel_is_padding_is_not_whole():
    operator = Convolution(randn(2, 2, 3), (5,), stride=3, padding=1)
    true = torch.linalg.svdvals(operator.matrix())
    torch.testing.assert_close(exact_singular_values(operator).values, true, rtol=0, atol=1e-12)


def test_patches_that_meet_padding_are_not_taken_for_whole_ones():
    for make in (
        {"padding": 1},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": 1, "padding_mode": "circular"},
    ):
        operator = Convolution(randn(2, 2, 2), (4,), stride=2, **make)
        true = torch.linalg.svdvals(operator.matrix())
        torch.testing.assert_close(exact_singular_values(operator).values, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_small_storage_is_exact_as_stored(dtype):
    def stored(*shape, seed=0):
        return randn(*shape, seed=seed, dtype=torch.float32).to(dtype)

    up, down, kernel = stored(7, 2), stored(2, 6, seed=1), stored(4, 1, 3)
    for operator, matrix in (
        (Dense(stored(4, 6)), stored(4, 6).double()),
        (LowRank(up, down), up.double() @ down.double()),
        (Sum(Dense(stored(7, 6)), LowRank(up, down)), stored(7, 6).double() + up.double() @ down.double()),
        (Grouped(kernel, 2), torch.block_diag(*kernel.double().flatten(1).chunk(2))),
        (
            Convolution(kernel, (4,), padding=1, groups=2),
            Convolution(kernel.double(), (4,), padding=1, groups=2).matrix(),
        ),
    ):
        true = torch.linalg.svdvals(matrix)
        found = exact_singular_values(operator).values.double()
        torch.testing.assert_close(found, true, rtol=0, atol=2e-7 * float(true[0]))
        assert frobenius(operator) == pytest.approx(float(true.norm()), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_spectrum_and_no_norm(bad):
    weight = randn(3, 4)
    weight[1, 2] = bad
    for operator in (
        Dense(weight),
        LowRank(weight, randn(4, 5)),
        LowRank(randn(5, 3), weight),
        Grouped(weight, 3),
        Kronecker(weight, torch.zeros(2, 2)),
        Convolution(weight[:, :, None], (3,)),
        Circular(weight[:, :, None].expand(3, 4, 2), (3,)),
        Scaled(Dense(randn(2, 2)), bad),
        Sum(Dense(weight), Dense(randn(3, 4))),
    ):
        for ask in (exact_singular_values, frobenius):
            with pytest.raises(ValueError, match=r"nan|finite"):
                ask(operator)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_norms_neither_vanish_nor_overflow(scale):
    weight = randn(3, 4)
    assert frobenius(Dense(weight * scale)) == pytest.approx(float(weight.norm()) * scale, rel=1e-13)


@pytest.mark.parametrize("groups", [2, 3])
def test_the_norm_of_groups_is_the_largest_not_the_product(groups):
    weight = randn(6, 3) * 5
    norms = [float(torch.linalg.svdvals(part)[0]) for part in weight.chunk(groups)]
    assert exact_singular_values(Grouped(weight, groups)).values[0].item() == pytest.approx(max(norms), rel=1e-13)


def test_large_blocks_are_taken_one_by_one(monkeypatch):
    weight = randn(6, 4)
    small = exact_singular_values(Grouped(weight, 2)).values
    monkeypatch.setattr(exact, "_SMALL", 1)
    torch.testing.assert_close(exact_singular_values(Grouped(weight, 2)).values, small, rtol=0, atol=1e-13)
