import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lsdr.linalg import circular
from lsdr.linalg.circular import Circular, circular_singular_values


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def on_a_torus(weight, size, stride, dilation, groups):
    """The matrix entry by entry; `size` is that of the image."""
    out, per_group, *kernel = weight.shape
    counts = [n // s for n, s in zip(size, stride, strict=True)]
    matrix = np.zeros((out, *counts, per_group * groups, *size))
    for o, *j in np.ndindex(out, *counts):
        for c, *t in np.ndindex(per_group, *kernel):
            pixel = [
                (s * p + d * q - d * (k - 1) // 2) % n
                for n, s, p, d, q, k in zip(size, stride, j, dilation, t, kernel, strict=True)
            ]
            matrix[(o, *j, o // (out // groups) * per_group + c, *pixel)] += weight[(o, c, *t)]
    return matrix.reshape(out * math.prod(counts), per_group * groups * math.prod(size))


@st.composite
def tori(draw, dimensions=(1, 2)):
    d = draw(st.sampled_from(dimensions))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(d))

    groups = draw(st.sampled_from([1, 1, 2]))
    shape = (groups * draw(st.integers(1, 3)), draw(st.integers(1, 2)), *each(1, 4))
    make = {"stride": each(1, 3), "dilation": each(1, 2), "groups": groups}
    return randn(*shape, seed=draw(st.integers(0, 99))), each(1, 3), make


@settings(max_examples=100, deadline=None)
@given(tori(), st.booleans())
def test_all_singular_values_are_those_of_the_matrix_made_by_loops(agrees, torus, transposed):
    weight, positions, make = torus  # kernels are often wider than the image: their taps wrap
    image = tuple(q * s for q, s in zip(positions, make["stride"], strict=True))
    dense = on_a_torus(weight, image, **make)
    size = positions if transposed else image
    agrees(Circular(weight, size, transposed=transposed, **make), dense.T if transposed else dense)
    true = torch.from_numpy(np.linalg.svd(dense, compute_uv=False))
    for precision, close in (("float64", 1e-12), ("float32", 1e-7)):
        found = circular_singular_values(weight, size, transposed=transposed, precision=precision, **make)
        assert found.values.shape == true.shape
        torch.testing.assert_close(found.values, true, rtol=0, atol=close * float(weight.norm()) * 3)
        assert bool((found.lower <= true + 1e-14).all())
        assert bool((true <= found.upper + 1e-14).all())
        assert bool((found.lower <= found.values).all())
        assert float((found.upper - found.lower)[0]) < 1e-11 * float(weight.norm())


def test_three_dimensions(agrees):
    weight, make = randn(2, 2, 2, 3, 2), {"stride": (1, 2, 1), "dilation": (1, 1, 2), "groups": 1}
    dense = on_a_torus(weight, (2, 4, 3), **make)
    agrees(Circular(weight, (2, 4, 3), **make), dense)
    true = torch.from_numpy(np.linalg.svd(dense, compute_uv=False))
    torch.testing.assert_close(circular_singular_values(weight, (2, 4, 3), **make).values, true, rtol=0, atol=1e-12)


def test_for_odd_kernels_the_operator_is_torchs_circular_convolution(agrees):
    layer = nn.Conv2d(2, 3, (3, 5), stride=(2, 1), padding=(1, 2), padding_mode="circular", bias=False).double()
    with torch.no_grad():
        dense = layer(torch.eye(60, dtype=torch.float64).reshape(-1, 2, 6, 5)).flatten(1).T
    agrees(Circular(layer.weight, (6, 5), stride=(2, 1)), dense)


def test_an_fft_gives_the_same_symbol():
    weight = randn(5, 4, 3, 3)
    symbol = torch.fft.fft2(weight, s=(8, 6))
    true = torch.linalg.svdvals(symbol.permute(2, 3, 0, 1)).flatten().sort(descending=True).values
    torch.testing.assert_close(circular_singular_values(weight, (8, 6)).values, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(5,), (6,), (4, 6), (3, 5), (1,), (2, 2)])
@pytest.mark.parametrize("limit", [1, 1 << 12])
def test_the_frequencies_may_be_taken_a_few_at_a_time(monkeypatch, size, limit):
    weight = randn(3, 2, *[3] * len(size))
    whole = circular_singular_values(weight, size).values
    assert len(whole) == 2 * math.prod(size)
    monkeypatch.setattr(circular, "_WORKING_BYTES", limit)
    torch.testing.assert_close(circular_singular_values(weight, size).values, whole, rtol=0, atol=1e-13)


def test_one_block_is_held_for_a_pair_of_opposite_frequencies(monkeypatch):
    decomposed = []
    svdvals = torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda block: decomposed.append(len(block)) or svdvals(block))
    circular_singular_values(randn(2, 2, 3, 3), (8, 8))
    assert sum(decomposed) == (64 + 4) // 2


def test_groups_are_the_union_so_the_norm_is_the_largest_of_theirs():
    weight = randn(6, 2, 3, 3)
    weight[2:] *= 0.1
    parts = [circular_singular_values(part, (4, 4)).values for part in weight.chunk(3)]
    whole = circular_singular_values(weight, (4, 4), groups=3).values
    torch.testing.assert_close(whole, torch.cat(parts).sort(descending=True).values, rtol=0, atol=1e-13)
    assert whole[0].item() == pytest.approx(max(part[0].item() for part in parts), rel=1e-12)


def test_an_orthogonal_one_pixel_kernel_has_only_ones():
    q = torch.linalg.qr(randn(4, 4)).Q[:, :, None, None]
    torch.testing.assert_close(
        circular_singular_values(q, (3, 5)).values, torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-13
    )


def test_taps_that_cancel_leave_zero_within_its_bounds():
    found = circular_singular_values(torch.tensor([[[1.0, -1.0]]]) / 3, (1,))
    assert found.lower.item() == 0.0
    assert 0.0 <= found.values.item() <= found.upper.item() < 1e-14
    taps = [-0.8, 0.1, 0.7]  # their sum is rounded upwards
    true = float(abs(sum(map(Fraction, taps))))
    found = circular_singular_values(torch.tensor([[taps]], dtype=torch.float64), (1,))
    assert found.lower.item() <= true <= found.upper.item()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_zero_kernel_has_zeros(precision):
    found = circular_singular_values(torch.zeros(2, 3, 3, 3), (4, 4), precision=precision)
    for values in (found.values, found.lower, found.upper):
        assert torch.equal(values, torch.zeros(32, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e150])
def test_extreme_weights_neither_vanish_nor_overflow(scale):
    weight = randn(2, 2, 3)
    for precision in ("float32", "float64"):
        found = circular_singular_values(weight * scale, (4,), precision=precision).values
        torch.testing.assert_close(
            found[:3] / scale, circular_singular_values(weight, (4,)).values[:3], rtol=1e-9, atol=0
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_small_storage_is_taken_at_its_word(dtype):
    weight = randn(3, 2, 3, dtype=torch.float32).to(dtype)
    torch.testing.assert_close(
        circular_singular_values(weight, (4,)).values, circular_singular_values(weight.double(), (4,)).values
    )


def test_a_stride_that_does_not_divide_is_refused_with_a_size_that_would_do():
    for make in (circular_singular_values, Circular):
        with pytest.raises(ValueError, match=r"take size \(8, 3\)"):
            make(torch.ones(1, 1, 3, 3), (7, 4), stride=(4, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_have_no_spectrum(bad):
    with pytest.raises(ValueError, match="1 of 3 weights"):
        circular_singular_values(torch.tensor([[[1.0, bad, 2.0]]]), (4,))


def test_a_coarse_grid_underestimates_the_supremum():
    weight = randn(8, 8, 3, 3)
    tops = [circular_singular_values(weight, (n, n)).values[0].item() for n in (3, 6, 12, 24)]
    assert all(a < b + 1e-12 for a, b in itertools.pairwise(tops))  # each grid contains the one before
    assert 0.9 < tops[0] / tops[-1] < 0.9999
