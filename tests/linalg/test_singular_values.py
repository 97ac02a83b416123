import pytest
import torch

from lsdr.linalg.singular_values import lower_gram, short_side_vectors, singular_values

SHAPES = [(1, 1), (1, 20), (20, 1), (40, 60), (60, 40), (70, 70), (30, 900), (900, 30), (200, 210)]
STORED = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


def gaussian(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_contains(spectrum, truth, slack=1e-13):
    """The truth's own error is relative to the largest."""
    truth, allowance = truth.double(), slack * truth[0]
    assert bool((spectrum.lower.double() <= truth + allowance).all())
    assert bool((spectrum.upper.double() >= truth - allowance).all())
    assert bool((spectrum.lower <= spectrum.values).all())
    assert bool((spectrum.values <= spectrum.upper).all())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_against_an_svd_in_float64(shape, stored, precision):
    matrix = gaussian(shape).to(stored)
    spectrum = singular_values(matrix, precision)
    truth = torch.linalg.svdvals(matrix.double())
    assert_contains(spectrum, truth)
    single = precision == "float32" and stored != torch.float64
    assert (spectrum.values.double() - truth).abs().max() <= (1e-3 if single else 2e-7) * truth[0]
    assert spectrum.upper[0] / spectrum.lower[0] - 1 < (3e-5 if single else 3e-7)
    assert spectrum.values.dtype == (torch.float64 if stored == torch.float64 else torch.float32)
    kind = "SVD in float64" if stored == torch.float64 else f"Gram matrix in {precision}"
    assert spectrum.method == kind


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_cannot_be_told_from_zero_says_so(precision):
    """Rank 5 of 60, and a spectrum down to 1e-6 of the largest."""
    low_rank = (gaussian((60, 5)) @ gaussian((5, 80), 1)).float()
    left, right = torch.linalg.qr(gaussian((60, 60), 2))[0], torch.linalg.qr(gaussian((80, 60), 3))[0]
    decaying = (left * torch.logspace(0, -6, 60, dtype=torch.float64) @ right.T).float()
    for matrix in (low_rank, decaying):
        spectrum = singular_values(matrix, precision)
        assert_contains(spectrum, torch.linalg.svdvals(matrix.double()))
    spectrum = singular_values(low_rank, precision)
    resolved = 5e-3 if precision == "float32" else 1.5e-7
    assert spectrum.lower[5:].max() <= 2e-7 * spectrum.values[0]  # float32 storage of the product is of full rank
    assert 0 < spectrum.upper[-1] < resolved * spectrum.values[0]
    if precision == "float64":
        torch.testing.assert_close(
            singular_values(decaying).values.double(), torch.linalg.svdvals(decaying.double()), rtol=1e-3, atol=0
        )


def test_the_error_of_a_float32_gram_matrix_is_measured(monkeypatch):
    """Whatever spoils the products (here 1e-3 of one of them): the bounds know."""
    matrix = gaussian((50, 70)).float()
    truth = torch.linalg.svdvals(matrix.double())

    def spoiled(wide, dtype):
        gram, factor = lower_gram(wide, dtype)
        gram[30, 20] += 1e-3 * gram[0, 0]
        return gram, factor

    monkeypatch.setattr("lsdr.linalg.singular_values.lower_gram", spoiled)
    spectrum = singular_values(matrix, "float32")
    assert_contains(spectrum, truth)
    assert spectrum.upper[0] / spectrum.lower[0] - 1 > 1e-4


def test_an_error_of_rank_one_is_measured_in_full(monkeypatch):
    """The hardest error to see in random directions, along the top vector, where it counts."""
    for seed in range(20):
        matrix = gaussian((30, 70), seed).float()
        vector = torch.linalg.svd(matrix)[0][:, 0]

        def spoiled(wide, dtype, vector=vector):
            gram, factor = lower_gram(wide, dtype)
            return gram + 0.1 * gram[0, 0] * torch.outer(vector, vector), factor

        monkeypatch.setattr("lsdr.linalg.singular_values.lower_gram", spoiled)
        assert_contains(singular_values(matrix, "float32"), torch.linalg.svdvals(matrix.double()))


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-15, 1e15, 1e30, 2e37])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_any_scale(scale, precision):
    matrix = gaussian((20, 30)).float() * scale
    spectrum = singular_values(matrix, precision)
    assert_contains(spectrum, torch.linalg.svdvals(matrix.double()))
    assert spectrum.upper[0] < 1.0001 * spectrum.lower[0]
    tiny = gaussian((20, 30)) * 1e-250
    assert_contains(singular_values(tiny), torch.linalg.svdvals(tiny))


def test_zero_is_zero():
    for precision in ("float32", "float64"):
        spectrum = singular_values(torch.zeros(3, 5), precision)
        assert spectrum.values.tolist() == spectrum.lower.tolist() == spectrum.upper.tolist() == [0, 0, 0]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_is_not_finite_is_counted(stored, precision):
    matrix = torch.ones(4, 6)
    matrix[1, 2] = matrix[3, 5] = torch.nan
    for form in (matrix, matrix.T):
        with pytest.raises(ValueError, match="2 of 24 weights are nan or infinite"):
            singular_values(form.to(stored), precision)
    with pytest.raises(ValueError, match=r"rows and columns, got shape \(0, 3\)"):
        singular_values(torch.ones(0, 3))


def test_blocks_make_no_difference(monkeypatch):
    matrix = gaussian((130, 301)).float()
    whole = [singular_values(matrix, precision).values for precision in ("float32", "float64")]
    monkeypatch.setattr("lsdr.linalg.singular_values._COPIED_BYTES", 1 << 14)
    for precision, values in zip(("float32", "float64"), whole, strict=True):
        torch.testing.assert_close(singular_values(matrix, precision).values, values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stored", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (25, 25)])
def test_vectors_of_the_short_side(shape, stored):
    matrix = gaussian(shape).to(stored)
    spectrum, vectors = short_side_vectors(matrix)
    wide = (matrix if shape[0] <= shape[1] else matrix.T).double()
    assert_contains(spectrum, torch.linalg.svdvals(wide))
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(len(wide), dtype=torch.float64))
    torch.testing.assert_close((wide.T @ vectors).norm(dim=0), spectrum.values.double(), rtol=1e-6, atol=1e-9)


def test_measuring_is_invisible_and_repeats():
    matrix = gaussian((40, 50)).float()
    before, state = matrix.clone(), torch.get_rng_state()
    first, second = singular_values(matrix, "float32"), singular_values(matrix, "float32")
    assert torch.equal(first.upper, second.upper)
    assert torch.equal(matrix, before)
    assert torch.equal(torch.get_rng_state(), state)
    leaf = matrix.clone().requires_grad_()
    assert not singular_values(leaf).values.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(singular_values(matrix, "float32").values, first.values)
