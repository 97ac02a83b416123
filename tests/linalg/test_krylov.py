"""Block power steps and block Krylov spaces against dense eigenvalues."""

import pytest
import torch

from lsdr.linalg.block_power import block_power_step, ritz
from lsdr.linalg.krylov import krylov_ritz


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def start(k, n):
    return torch.linalg.qr(random(n, k, seed=9)).Q.mT


@pytest.mark.parametrize("k", [1, 3])
def test_a_step_of_several_layers(k):
    weights = random(2, 12, 8)
    gram = weights.mT @ weights
    vectors = torch.stack([start(k, 8)] * 2)
    step = block_power_step(vectors, vectors @ gram)
    torch.testing.assert_close(step.vectors @ step.vectors.mT, torch.eye(k).expand(2, k, k), rtol=0, atol=1e-5)
    found = ritz(*step[1:])
    for i in range(2):
        products = vectors[i] @ gram[i]
        torch.testing.assert_close(found.squares[i], torch.linalg.svdvals(products).double(), rtol=1e-5, atol=0)
        turned = found.rotation[i].float() @ step.vectors[i]
        _, _, right = torch.linalg.svd(products, full_matrices=False)
        torch.testing.assert_close((turned * right).sum(1).abs(), torch.ones(k), rtol=1e-4, atol=0)


@pytest.mark.parametrize("k", [1, 2])
def test_zero_and_broken_layers_do_not_touch_their_neighbours(k):
    vectors = torch.stack([start(k, 6)] * 3)
    products = torch.stack([torch.zeros(k, 6), torch.full((k, 6), torch.nan), start(k, 6) * 4])
    step = block_power_step(vectors, products)
    found = ritz(*step[1:])
    assert found.squares[0].tolist() == found.residual[0].tolist() == [0.0] * k
    assert step.vectors[0].norm(dim=1).tolist() == pytest.approx([1.0] * k)
    assert not found.squares[1].isfinite().any()
    assert found.squares[2].tolist() == pytest.approx([4.0] * k)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(("m", "n"), [(200, 100), (30, 100), (3, 20), (5, 5)])
def test_top_values_from_a_random_start(k, m, n):
    k = min(k, m, n)
    weight = random(m, n, seed=m)
    gram = weight.double().mT @ weight.double()
    calls = []

    def product(block, stop):
        calls.append(len(block))
        return block @ weight.mT @ weight, stop

    squares, residuals, vectors = krylov_ritz(product, start(k, n))
    exact = torch.linalg.svdvals(weight.double())[:k] ** 2
    assert (squares <= exact * (1 + 1e-5)).all()
    torch.testing.assert_close(squares, exact, rtol=2e-2, atol=0)
    theta = squares[:, None]
    residual = ((vectors.double() @ gram - theta * vectors.double()).norm(dim=1)) / theta[:, 0]
    torch.testing.assert_close(residual, residuals, rtol=1e-2, atol=1e-5)
    assert sum(calls) <= max(64, 8 * k)


def test_low_rank_and_repeated_values():
    for weight, top in ((random(20, 2) @ random(2, 30), None), (torch.eye(30), 1.0), (torch.zeros(4, 30), 0.0)):
        squares, residuals, vectors = krylov_ritz(
            lambda block, stop, weight=weight: (block @ weight.mT @ weight, stop), start(3, 30), tolerance=1e-5
        )
        exact = torch.linalg.svdvals(weight.double())[:3] ** 2
        torch.testing.assert_close(squares, exact, rtol=1e-5, atol=1e-5 * float(exact[0]))
        assert residuals.isfinite().all()
        torch.testing.assert_close(vectors @ vectors.mT, torch.eye(3), rtol=0, atol=1e-4)
        assert top is None or squares.tolist() == pytest.approx([top] * 3, abs=1e-6)


def test_shared_products_stop_when_any_process_says_so():
    weight, told = random(40, 40), []

    def product(block, stop):
        told.append(stop)
        return block @ weight.mT @ weight, len(told) == 3

    krylov_ritz(product, start(1, 40), tolerance=0.0, shared=True)
    assert told == [False, False, False]

    told.clear()

    def alone(block, stop):
        told.append(stop)
        return block @ weight.mT @ weight, stop

    krylov_ritz(alone, start(1, 40), tolerance=10.0, growth=10.0, shared=True)
    assert told == [False, True]  # said beside a product, not before it
    told.clear()
    krylov_ritz(alone, start(1, 40), tolerance=10.0, growth=10.0)
    assert told == [False]
