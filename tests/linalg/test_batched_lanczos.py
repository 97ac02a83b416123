"""Block Lanczos on several symmetric operators against dense eigenvalues; quadrature against moments."""

import pytest
import torch

from lsdr.linalg.batched_lanczos import batched_quadrature, batched_ritz


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(*eigenvalues, dtype=torch.float64):
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    turn = torch.linalg.qr(random(*values.shape, values.shape[-1], seed=7)).Q
    return ((turn * values[:, None]) @ turn.mT).to(dtype)


def spread(count, n):
    return [torch.linspace(-1, 2 + i, n).tolist() for i in range(count)]


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_ends_against_eigvalsh(width, dtype):
    matrices = symmetric(*spread(3, 40), dtype=dtype)
    matrices[2] *= 1e-4  # examples are measured each in its own scale
    found = batched_ritz(
        lambda v: v @ matrices, random(3, width, 40).to(dtype), largest=3, smallest=2, tolerance=1e-5, steps=40
    )
    truth = torch.linalg.eigvalsh(matrices.double()).flip(-1)
    truth = torch.cat([truth[:, :3], truth[:, -2:]], 1)
    scale = truth.abs().amax(1, keepdim=True)
    torch.testing.assert_close(found.values / scale, truth / scale, rtol=0, atol=1e-5)
    assert found.converged.all()
    # Ritz values are inside, and an eigenvalue is as near as the residual.
    noise = found.noise[:, None]
    assert (found.values[:, :3] <= truth[:, :3] + noise).all()
    assert (found.values[:, 3:] >= truth[:, 3:] - noise).all()
    assert ((found.values - truth).abs() <= found.residuals + noise).all()
    residual = (found.vectors @ matrices - found.values.to(dtype)[..., None] * found.vectors).norm(dim=2)
    torch.testing.assert_close(found.residuals, residual.double(), rtol=1e-3, atol=2e-6)
    torch.testing.assert_close(found.vectors @ found.vectors.mT, torch.eye(5, dtype=dtype).expand(3, 5, 5))


def test_eigenvalues_as_often_as_they_are_there():
    matrices = symmetric([3.0] * 4 + [1.0] * 16, [2.0, 2.0, 1.0, *[0.0] * 17])
    found = batched_ritz(lambda v: v @ matrices, random(2, 5, 20), largest=5, smallest=1)
    expected = torch.tensor([[3.0, 3, 3, 3, 1, 1], [2, 2, 1, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-6)


def test_identity_zero_and_one_dimension():
    for matrices, value in ((torch.eye(6).double(), 1.0), (torch.zeros(6, 6).double(), 0.0)):
        found = batched_ritz(lambda v, matrices=matrices: v @ matrices, random(1, 4, 6), largest=4, smallest=4)
        torch.testing.assert_close(found.values, torch.full((1, 8), value, dtype=torch.float64))
        assert found.converged.all()
    assert batched_ritz(lambda v: -7 * v, random(2, 1, 1)).values.tolist() == [[-7.0], [-7.0]]


def test_all_values_of_a_small_matrix():
    matrices = symmetric(*spread(2, 7))
    found = batched_ritz(lambda v: v @ matrices, random(2, 3, 7), largest=7)
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrices).flip(-1))


def test_what_is_not_reached_is_said():
    matrices = symmetric(spread(1, 200)[0])
    found = batched_ritz(lambda v: v @ matrices, random(1, 1, 200), tolerance=1e-8, steps=4)
    assert found.steps == 4
    assert not found.converged.any()
    assert batched_ritz(lambda v: v @ matrices, random(1, 1, 200), tolerance=0.5, steps=200).steps < 10


def test_one_hard_operator_keeps_the_others_going_and_not_back():
    matrices = symmetric([9.0, *[1.0] * 99], spread(1, 100)[0])
    found = batched_ritz(lambda v: v @ matrices, random(2, 1, 100), tolerance=1e-6, steps=100)
    torch.testing.assert_close(found.values[:, 0], torch.tensor([9.0, 2.0], dtype=torch.float64), rtol=1e-8, atol=0)


def test_noise_tells_what_products_are_off():
    matrix, error = symmetric([*[3.0] * 4, *spread(1, 196)[0]]), random(1, 200, 200, seed=3) * 1e-4
    found = batched_ritz(lambda v: v @ (matrix + error), random(1, 4, 200), largest=2, tolerance=1e-9)
    antisymmetric = torch.linalg.matrix_norm((error - error.mT) / 2, 2)
    assert 0.2 * antisymmetric < found.noise < 1.1 * antisymmetric
    assert found.converged.all()  # nothing below the noise is chased
    assert found.steps < 30


def test_values_settle_before_it_ends():
    """Where eigenvalues are dense, every residual is small long before the Ritz value has come to the top."""
    matrix = symmetric(torch.linspace(0, 1, 400).square().tolist())
    errors = []
    for seed in range(5):
        found = batched_ritz(lambda v: v @ matrix, random(1, 1, 400, seed=seed), tolerance=0.1)
        errors.append(1 - found.values.item())
    assert max(errors) < 0.05


def test_as_many_steps_as_there_are_values():
    matrices = symmetric(*spread(1, 20))
    assert batched_ritz(lambda v: v @ matrices, random(1, 1, 20), largest=7, steps=2).steps == 7


@pytest.mark.parametrize(
    "options", [{"largest": 0}, {"largest": 6}, {"smallest": 6}, {"steps": 0}, {"largest": -1, "smallest": 2}]
)
def test_bad_numbers(options):
    with pytest.raises(ValueError, match="expected a block"):
        batched_ritz(lambda v: v, random(1, 2, 5), **options)


def test_a_block_wider_than_the_space():
    with pytest.raises(ValueError, match="expected a block"):
        batched_ritz(lambda v: v, random(1, 6, 5))


def test_products_that_are_not_finite():
    with pytest.raises(ValueError, match="nan or infinite"):
        batched_ritz(lambda v: v * torch.nan, random(1, 2, 5))
    with pytest.raises(ValueError, match="nan or infinite"):
        batched_quadrature(lambda v: v * torch.nan, random(1, 2, 5))


def test_quadrature_is_exact_for_polynomials():
    matrices, start = symmetric(*spread(2, 30)), random(2, 3, 30)
    nodes, weights = batched_quadrature(lambda v: v @ matrices, start, steps=4)
    unit = start / start.norm(dim=2, keepdim=True)
    for power in range(8):
        moved = unit
        for _ in range(power):
            moved = moved @ matrices
        torch.testing.assert_close((weights * nodes**power).sum(2), (unit * moved).sum(2))


def test_quadrature_of_an_exhausted_space():
    matrices = symmetric([1.0] * 5 + [-2.0] * 5)
    nodes, weights = batched_quadrature(lambda v: v @ matrices, random(1, 2, 10), steps=10)
    heavy = weights > 1e-9
    assert ((nodes[heavy] - 1).abs().minimum((nodes[heavy] + 2).abs()) < 1e-9).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 2, dtype=torch.float64))


def test_quadrature_finds_no_value_twice():
    """Without full orthogonalisation a large eigenvalue comes back as soon as it has been found."""
    matrices = symmetric([1e4, *torch.linspace(0, 1, 199).tolist()], dtype=torch.float32)
    nodes, weights = batched_quadrature(lambda v: v @ matrices, random(1, 1, 200).float(), steps=120)
    assert (nodes > 10).sum() == 1
    assert weights[nodes > 10].item() == pytest.approx(
        (random(1, 1, 200).float() @ torch.linalg.eigh(matrices)[1][0, :, -1:]).square().item()
        / random(1, 1, 200).square().sum().item(),
        rel=1e-3,
    )


def test_quadrature_needs_a_step():
    with pytest.raises(ValueError, match="steps"):
        batched_quadrature(lambda v: v, random(1, 1, 3), steps=0)


def test_the_quadrature_of_a_run_is_exact_for_polynomials():
    matrices = symmetric(*spread(2, 30))
    found = batched_ritz(lambda v: v @ matrices, random(2, 3, 30), largest=3, tolerance=1e-12, steps=4)
    start = torch.linalg.qr(random(2, 3, 30).mT).Q.mT
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2, dtype=torch.float64))
    for power in range(8):
        moved = start
        for _ in range(power):
            moved = moved @ matrices
        torch.testing.assert_close((found.weights * found.nodes**power).sum(1), (start * moved).sum(2).mean(1))


def test_a_narrow_block_may_miss_copies_but_stays_a_bound():
    matrix = symmetric([*[3.0] * 4, *torch.linspace(-1, 1, 96).tolist()])
    for width in (1, 2, 4):
        found = batched_ritz(lambda v: v @ matrix, random(1, width, 100), largest=4, steps=100)
        assert (found.values >= 3 - 1e-6).sum() >= width
        assert (found.values <= 3 + 1e-9).all()
