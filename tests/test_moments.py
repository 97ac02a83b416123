import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.moments import Moments


def rows(n, *shape, seed=0, dtype=torch.float64):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def vector_covariance(z):
    """The definition, term by term: sum over samples and positions, divided by the number of samples."""
    centred = z - z.mean(0)
    return sum(torch.outer(row, row) for row in centred.reshape(-1, z.shape[-1])) / len(z)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [(7, 3), (7, 4, 3)])
def test_one_chunk_follows_the_definition_and_keeps_its_kind(kind, shape):
    z = rows(*shape)
    moments = Moments.of(z.numpy() if kind == "numpy" else z)
    assert moments.count == 7
    assert isinstance(moments.mean, np.ndarray if kind == "numpy" else torch.Tensor)
    assert isinstance(moments.covariance(), np.ndarray if kind == "numpy" else torch.Tensor)
    torch.testing.assert_close(torch.as_tensor(moments.mean), z.mean(0))
    torch.testing.assert_close(torch.as_tensor(moments.covariance()), vector_covariance(z))
    torch.testing.assert_close(torch.as_tensor(moments.covariance(correction=1)), vector_covariance(z) * 7 / 6)


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), split=st.integers(0, 6), positions=st.booleans())
@settings(max_examples=40, deadline=None)
def test_chunks_merge_in_any_way_to_the_whole(sizes, split, positions):
    x = 5 + rows(sum(sizes) + 2, *([2] if positions else []), 3)
    y = rows(sum(sizes) + 2, *([2] if positions else []), 4, seed=1)
    pieces = list(zip(x.split([2, *sizes]), y.split([2, *sizes]), strict=True))
    left, right = Moments(), Moments()
    for piece in pieces[:split]:
        left.update(*piece)
    for piece in pieces[split:]:
        right.update(*piece)
    merged, whole = left.merge(right), Moments.of(x, y)
    assert merged is left
    assert merged.count == whole.count
    torch.testing.assert_close(merged.mean, x.mean(0))
    torch.testing.assert_close(merged.y.mean, y.mean(0))
    torch.testing.assert_close(merged.covariance(), vector_covariance(x))
    torch.testing.assert_close(merged.y.covariance(), vector_covariance(y))
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    torch.testing.assert_close(
        merged.cross_covariance(), torch.einsum("n...i,n...j->ij", centred_x, centred_y) / len(x)
    )


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("how", ["one", "chunks", "single rows", "merge", "after none"])
@pytest.mark.parametrize("level", [1e4, 1e6])
def test_no_digit_is_lost_far_from_the_origin(kind, how, level):
    """float32 rows, moments against NumPy's float64 of the very same float32 numbers."""
    z = (
        level + rows(600, 4, dtype=torch.float32) @ torch.tensor(np.triu(np.ones((4, 4))), dtype=torch.float32)
    ).float()
    given_rows = z.numpy() if kind == "numpy" else z
    if how == "one":
        moments = Moments.of(given_rows)
    elif how == "after none":
        moments = Moments.of(given_rows[:0]).update(given_rows[:300]).update(given_rows[300:])
    elif how == "merge":
        moments = Moments.of(given_rows[:1]).merge(Moments.of(given_rows[1:400]).merge(Moments.of(given_rows[400:])))
    else:
        moments = Moments()
        size = 100 if how == "chunks" else 1
        for start in range(0, 600, size):
            moments.update(given_rows[start : start + size])
    expected = np.cov(z.double().numpy().T, bias=True)
    error = np.abs(np.asarray(moments.covariance(), dtype=np.float64) - expected).max() / expected.max()
    assert error < (1e-11 if kind == "numpy" else 2e-6)


def test_gradients_through_update_merge_and_both_views():
    def penalty(a, b, c):
        left = Moments.of(a, a.tanh()).update(b, b.tanh())
        moments = left.merge(Moments.of(c, c.tanh()))
        return moments.covariance(1), moments.cross_covariance(), moments.mean, moments.y.covariance(), moments.y.mean

    chunks = tuple((3 + rows(n, 2, 3, seed=n)).requires_grad_() for n in (1, 3, 2))
    assert torch.autograd.gradcheck(penalty, chunks)


def test_the_shift_carries_no_gradient_and_no_detached_chunk_does():
    live, still = rows(3, 2).requires_grad_(), rows(4, 2, seed=1).requires_grad_()
    Moments.of(still).detach().update(live).covariance().pow(2).sum().backward()
    assert still.grad is None
    whole = torch.cat([still.detach(), live.detach().requires_grad_()])
    leaf = whole.detach().requires_grad_()
    Moments.of(leaf).covariance().pow(2).sum().backward()
    torch.testing.assert_close(live.grad, leaf.grad[4:])
    assert not Moments.of(live).detach().covariance().requires_grad


@pytest.mark.parametrize("first", ["empty", "full"])
def test_an_empty_chunk_changes_nothing_but_stays_in_the_graph(first):
    empty, full = torch.empty(0, 3, dtype=torch.float64, requires_grad=True), 2 + rows(4, 3)
    chunks = (empty, full) if first == "empty" else (full, empty)
    moments = Moments.of(chunks[0]).update(chunks[1])
    assert moments.count == 4
    torch.testing.assert_close(moments.covariance(), Moments.of(full).covariance(), rtol=0, atol=0)
    torch.testing.assert_close(moments.mean, Moments.of(full).mean, rtol=0, atol=0)
    assert moments.covariance().requires_grad


def test_without_samples_there_is_no_covariance():
    for moments in (Moments(), Moments.of(np.empty((0, 3)))):
        assert moments.count == 0
        with pytest.raises(ValueError, match="more than 0 samples, got 0"):
            moments.covariance()
        with pytest.raises(ValueError, match="mean needs more than 0"):
            _ = moments.mean
    with pytest.raises(ValueError, match="more than 1 samples, got 1"):
        Moments.of(np.ones((1, 3))).covariance(correction=1)
    assert np.array_equal(Moments.of(np.ones((1, 3))).covariance(), np.zeros((3, 3)))


def test_merging_leaves_the_other_state_alone():
    start, other = Moments(), Moments.of(rows(3, 2))
    before = other.covariance().clone()
    start.merge(other).update(rows(5, 2, seed=1))
    assert other.count == 3
    torch.testing.assert_close(other.covariance(), before, rtol=0, atol=0)
    assert start.merge(Moments()).count == 8


def test_floating_types():
    half = rows(6, 3, dtype=torch.bfloat16)
    assert Moments.of(half).covariance().dtype == torch.float32
    torch.testing.assert_close(Moments.of(half).covariance(), vector_covariance(half.float()))
    mixed = Moments.of(half).update(rows(4, 3, seed=1))
    assert mixed.covariance().dtype == torch.float64
    torch.testing.assert_close(mixed.covariance(), vector_covariance(torch.cat([half.double(), rows(4, 3, seed=1)])))
    assert Moments.of(half, rows(6, 2)).cross_covariance().dtype == torch.float64
    assert Moments.of(np.arange(6, dtype=np.uint8).reshape(3, 2)).mean.dtype == np.float64
    assert Moments.of(torch.arange(6).reshape(3, 2)).mean.tolist() == [2, 3]


def test_autocast_is_ignored():
    z = rows(6, 3, dtype=torch.float32)
    expected = Moments.of(z[:2]).update(z[2:]).covariance()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Moments.of(z[:2]).update(z[2:]).covariance()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"got shape \(3,\)", lambda: Moments.of(np.ones(3))),
        (ValueError, "same samples", lambda: Moments.of(np.ones((3, 2)), np.ones((4, 2)))),
        (ValueError, "same samples", lambda: Moments.of(np.ones((3, 5, 2)), np.ones((3, 4, 2)))),
        (ValueError, "2 dimensions.*3 dimensions", lambda: Moments.of(np.ones((3, 2))).update(np.ones((3, 3)))),
        (ValueError, "positions", lambda: Moments.of(np.ones((3, 5, 2))).update(np.ones((3, 4, 2)))),
        (ValueError, "two views", lambda: Moments.of(np.ones((3, 2)), np.ones((3, 1))).update(np.ones((3, 3)))),
        (ValueError, "two views", lambda: Moments.of(np.ones((0, 3))).update(np.ones((3, 2)), np.ones((3, 1)))),
        (ValueError, "one view", lambda: Moments.of(np.ones((3, 2))).cross_covariance()),
        (ValueError, "one view", lambda: Moments.of(np.ones((3, 2))).y),
        (TypeError, "real numbers", lambda: Moments.of(np.ones((3, 2), dtype=complex))),
        (TypeError, "real numbers", lambda: Moments.of(torch.ones(3, 2, dtype=torch.complex64))),
        (TypeError, "both", lambda: Moments.of(np.ones((3, 2)), torch.ones(3, 2))),
        (TypeError, "NumPy moments with torch", lambda: Moments.of(np.ones((3, 2))).update(torch.ones(3, 2))),
    ],
)
def test_what_does_not_fit_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_all_reduce_of_a_single_process_is_itself():
    moments = Moments.of(rows(3, 2))
    assert moments.all_reduce() is moments


def test_numpy_moments_need_no_torch():
    program = (
        "import sys, numpy; from lsdr.moments import Moments; m = Moments.of(numpy.eye(3), numpy.eye(3));"
        "m.update(numpy.eye(3), numpy.eye(3)).all_reduce().cross_covariance(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("sizes", [(9,), (4, 0, 5)])
def test_weights_are_repetitions(kind, positions, sizes):
    shape = [2] if positions else []
    x, y = 3 + rows(9, *shape, 3), rows(9, *shape, 2, seed=1)
    weights = torch.tensor([2, 0, 1, 3, 1, 0, 0, 5, 1])
    convert = (lambda array: array.numpy()) if kind == "numpy" else lambda array: array
    moments = Moments()
    for piece in zip(x.split(sizes), y.split(sizes), weights.split(sizes), strict=True):
        moments.update(*map(convert, piece))
    again = Moments.of(x.repeat_interleave(weights, 0), y.repeat_interleave(weights, 0))
    assert moments.count == 13
    assert isinstance(moments.count, float)
    for found, expected in (
        (moments.mean, again.mean),
        (moments.covariance(1), again.covariance(1)),
        (moments.cross_covariance(), again.cross_covariance()),
        (moments.y.covariance(), again.y.covariance()),
        (moments.cross, again.cross),
    ):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_weights_of_any_size_merge_by_their_sums(kind):
    """Sums far below 1, and chunks with none at all."""
    x, weights = 1e4 + rows(40, 3), 1e-3 * rows(40, seed=2).abs()
    weights[10:20] = 0
    moments = Moments()
    for piece in zip(x.split(10), weights.split(10), strict=True):
        z, w = (array.numpy() if kind == "numpy" else array for array in piece)
        moments.merge(Moments.of(z, weights=w))
    mean = np.average(x.numpy(), axis=0, weights=weights.numpy())
    covariance = np.cov(x.numpy().T, aweights=weights.numpy(), bias=True)
    np.testing.assert_allclose(np.asarray(moments.mean), mean, rtol=1e-13)
    np.testing.assert_allclose(np.asarray(moments.covariance()), covariance, rtol=1e-10)


def test_gradients_through_weights():
    def penalty(x, weights):
        moments = Moments.of(x[:4], weights=weights[:4]).update(x[4:], weights=weights[4:])
        return moments.covariance(), moments.mean

    x, weights = (2 + rows(6, 3)).requires_grad_(), rows(6, seed=1).abs()
    assert torch.autograd.gradcheck(lambda z: penalty(z, weights), (x,))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(20000, 30), (3000, 20, 10), (2, 5000, 40)])
def test_long_chunks_are_cut_to_the_cache(shape, order):
    z = np.asarray(1e6 + np.random.default_rng(0).normal(size=shape), order=order)
    weights = np.random.default_rng(1).uniform(size=shape[0])
    centred = z - z.mean(0)
    flat = centred.reshape(-1, shape[-1])
    moments = Moments.of(z)
    np.testing.assert_allclose(moments.cross, flat.T @ flat, rtol=1e-9, atol=1e-9 * len(flat))
    np.testing.assert_array_equal(moments.cross, moments.cross.T)
    centred = z - np.average(z, axis=0, weights=weights)
    flat = centred.reshape(-1, shape[-1])
    heavy = (centred * weights.reshape(-1, *[1] * (z.ndim - 1))).reshape(flat.shape)
    np.testing.assert_allclose(Moments.of(z, weights=weights).cross, flat.T @ heavy, rtol=1e-9, atol=1e-9 * len(flat))


def test_expand_adds_columns_that_were_zero():
    z = 1e6 + rows(30, 3).numpy()
    wide = np.zeros((30, 5))
    wide[:, [4, 0, 2]] = z
    moments = Moments.of(z)
    expanded = moments.expand([4, 0, 2], 5)
    np.testing.assert_allclose(expanded.mean, wide.mean(0), rtol=1e-14)
    np.testing.assert_allclose(expanded.cross, Moments.of(wide).cross, rtol=1e-9, atol=1e-9)
    assert not expanded.cross[[1, 3]].any()
    assert expanded.count == 30
    whole = expanded.merge(Moments.of(wide + 1))
    np.testing.assert_allclose(whole.cross, Moments.of(np.concatenate([wide, wide + 1])).cross, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(moments.cross, Moments.of(z).cross)


def test_given_moments_are_those_given():
    seen = Moments.of(rows(30, 3).numpy())
    again = Moments.given(seen.count, seen.mean, seen.cross).merge(seen)
    np.testing.assert_allclose(again.covariance(), seen.covariance(), rtol=1e-12)
    np.testing.assert_allclose(again.mean, seen.mean, rtol=1e-12)
    with pytest.raises(ValueError, match="cross needs more than 0 samples"):
        _ = Moments().cross


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"shape \(3,\), one a sample, got \(2,\)",
            lambda: Moments.of(np.ones((3, 2)), weights=np.ones(2)),
        ),
        (ValueError, "not negative", lambda: Moments.of(np.ones((2, 2)), weights=np.array([1, -1]))),
        (ValueError, "finite", lambda: Moments.of(torch.ones(2, 2), weights=torch.tensor([1, np.inf]))),
        (ValueError, "finite", lambda: Moments.of(np.ones((2, 2)), weights=np.array([1, np.nan]))),
        (TypeError, "same kind", lambda: Moments.of(torch.ones(2, 2), weights=np.ones(2))),
        (ValueError, "2 different numbers from 0 to 3", lambda: Moments.of(np.ones((3, 2))).expand([1, 1], 4)),
        (ValueError, "2 different numbers from 0 to 3", lambda: Moments.of(np.ones((3, 2))).expand([1, 4], 4)),
        (ValueError, "2 different numbers from 0 to 3", lambda: Moments.of(np.ones((3, 2))).expand([1], 4)),
        (ValueError, "one view", lambda: Moments.of(np.ones((3, 2)), np.ones((3, 1))).expand([0, 1, 2], 4)),
        (ValueError, "one view", lambda: Moments.of(torch.ones(3, 2)).expand([0, 1], 4)),
        (ValueError, "have seen a chunk", lambda: Moments().expand([0, 1], 4)),
    ],
)
def test_weights_and_positions_that_do_not_fit_are_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
