"""One pass over many weights: products, sums of squares, views and what must not be copied."""

import pytest
import torch

from lsdr.linalg import weight_pass as module
from lsdr.linalg.weight_pass import many_passes, permuted_columns, restored_columns, rows_of, stacked_view, weight_pass


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(matrix, vectors):
    wide = matrix.flatten(1).double()
    return (vectors.double() @ wide.mT) @ wide


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("cached", [64, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_squares(monkeypatch, k, cached, dtype):
    monkeypatch.setattr(module, "_CACHED_BYTES", cached)
    whole = random(23, 40).to(dtype)
    for matrix in (whole, whole.mT, whole[:, 3:17], whole[::2], random(5, 6, 4, 3).to(dtype)[:, :, ::2, :2]):
        vectors = random(k, matrix[0].numel(), seed=1)
        out = torch.full_like(vectors, torch.nan)
        squares = weight_pass(matrix, vectors, out)
        torch.testing.assert_close(out.double(), exact(matrix, vectors), rtol=1e-5, atol=1e-4)
        assert squares == pytest.approx(float(matrix.double().square().sum()), rel=1e-6)
        scaled = weight_pass(matrix, vectors, out, 4.0)
        torch.testing.assert_close(16 * out.double(), exact(matrix, vectors), rtol=1e-5, atol=1e-4)
        assert 16 * scaled == pytest.approx(squares)
        assert weight_pass(matrix, vectors, out, squares=False) == 0


def test_no_rows():
    out = torch.full((2, 5), torch.nan)
    assert weight_pass(torch.empty(0, 5), random(2, 5), out) == 0
    assert not out.any()


def test_storage_in_another_order_is_a_view():
    for weight in (random(6, 4, 3, 2).to(memory_format=torch.channels_last), random(3, 5, 6).permute(2, 0, 1)):
        matrix, order = rows_of(weight)
        assert matrix.data_ptr() == weight.data_ptr()
        vectors = random(2, matrix.shape[1])
        permuted = permuted_columns(vectors, weight.shape, order)
        torch.testing.assert_close(permuted @ matrix.mT, vectors @ weight.flatten(1).mT)
        torch.testing.assert_close(restored_columns(permuted, weight.shape, order), vectors, rtol=0, atol=0)


def test_neighbours_in_one_storage_are_one_tensor():
    fused = random(30, 8)
    stack = stacked_view(fused.split(10))
    assert stack.data_ptr() == fused.data_ptr()
    torch.testing.assert_close(stack, fused.view(3, 10, 8))
    heads = random(3, 4, 5).unbind()
    torch.testing.assert_close(stacked_view(heads[1:]), torch.stack(heads[1:]))
    for apart in (
        [random(2, 3), random(2, 3)],
        [fused[:10], fused[10:25]],
        [fused[:10], fused[11:21], fused[20:]],
        [fused[:10], fused[:10]],
        [fused[10:20], fused[:10]],
        [random(2, 3, 4), random(2, 3, 4)],
    ):
        assert stacked_view(apart) is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_many(monkeypatch, threads, k):
    monkeypatch.setattr(module, "_ALONE_BYTES", 0)
    torch.set_num_threads(threads)
    products = []
    plain = module.stacked_pass
    monkeypatch.setattr(module, "stacked_pass", lambda *views: products.append(len(views[0])) or plain(*views))
    matrices = [*random(4, 6, 5).unbind(), random(9, 5), random(5, 5, seed=2).bfloat16(), random(3, 2, 2, 2)]
    matrices[1][2, 2] = torch.nan
    vectors = [*random(4, k, 5).unbind(), *(random(k, matrix[0].numel()) for matrix in matrices[4:])]
    out = [*torch.empty(4, k, 5).unbind(), *(torch.empty_like(v) for v in vectors[4:])]
    sums = many_passes(matrices, vectors, out, [1.0] * len(matrices))
    assert products == [4]  # the four heads, and nothing else
    for i, (matrix, v, z, total) in enumerate(zip(matrices, vectors, out, sums, strict=True)):
        if i == 1:
            assert not torch.isfinite(torch.tensor(total))
            continue
        torch.testing.assert_close(z.double(), exact(matrix, v), rtol=1e-5, atol=1e-5)
        assert total == pytest.approx(float(matrix.double().square().sum()), rel=1e-6)
