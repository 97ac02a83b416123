import math

import pytest
import torch

from lsdr.linalg.dense import Dense
from lsdr.linalg.lanczos import lanczos, lanczos_vector
from lsdr.linalg.operator import LinearOperator

SHAPES = [(40, 60), (60, 40), (50, 50), (3, 80), (80, 3), (120, 90)]
KINDS = {
    "gapped": lambda i, k: torch.where(i == 0, 3.0, 1 / (1 + i / 5)),
    "power law": lambda i, k: (1 + i) ** -0.7,
    "clustered top": lambda i, k: torch.where(i < 3, 1 - 1e-3 * i, 0.5 / (1 + i)),
    "repeated top": lambda i, k: torch.where(i < 4, 1.0, 0.6 / (1 + 0.1 * i)),
    "low rank": lambda i, k: torch.where(i < 5, 1 / (1 + i), 0.0),
    "orthogonal": lambda i, k: torch.ones(k),
    "exponential": lambda i, k: 0.5**i,
    "two values": lambda i, k: torch.where(i < k // 2, 1.0, 0.5),
    "tied top, nothing else": lambda i, k: torch.where(i < 2, 1.0, 1e-4),
}


def orthogonal(m, k, generator):
    return torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=torch.float64))[0]


def matrix_of(kind, m, n, generator):
    if kind == "Gaussian":
        return torch.randn(m, n, generator=generator, dtype=torch.float64)
    k = min(m, n)
    values = KINDS[kind](torch.arange(k, dtype=torch.float64), k).double()
    return orthogonal(m, k, generator) * values @ orthogonal(n, k, generator).T


def top_of(matrix):
    return torch.linalg.svdvals(matrix.double())[0].item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_contain_the_truth_and_are_as_close_as_asked(dtype):
    """600 matrices of ten kinds; at failure 1e-4 not one of them is expected to fail."""
    generator = torch.Generator().manual_seed(0)
    slack = 4 * torch.finfo(torch.float64).eps  # of the truth's own rounding
    for repetition in range(60):
        for kind in ("Gaussian", *KINDS):
            matrix = (matrix_of(kind, *SHAPES[repetition % 6], generator) * 10.0 ** (repetition % 5 * 2 - 4)).to(dtype)
            truth = top_of(matrix)
            spectrum = lanczos(Dense(matrix), failure=1e-4, generator=generator)
            assert spectrum.lower.item() <= truth * (1 + slack), (kind, matrix.shape)
            assert spectrum.upper.item() >= truth * (1 - slack), (kind, matrix.shape)
            assert spectrum.upper.item() <= spectrum.lower.item() * (1.01 + 1e-12), (kind, matrix.shape)
            assert spectrum.lower.item() <= spectrum.values.item() <= spectrum.upper.item()
            assert "not reached" not in spectrum.method


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_upper_bound_fails_no_more_often_than_said_and_not_never(dtype):
    """A bound that never fails at 20% says nothing; one that fails more often than that is none."""
    generator = torch.Generator().manual_seed(1)
    failures = 0
    for repetition in range(600):
        kind = ("gapped", "power law", "Gaussian")[repetition % 3]
        matrix = matrix_of(kind, *SHAPES[repetition % 2], generator).to(dtype)
        failures += lanczos(Dense(matrix), failure=0.2, generator=generator).upper.item() < top_of(matrix) * (1 - 1e-9)
    assert 10 < failures < 120 + 3 * math.sqrt(600 * 0.2 * 0.8)


def test_a_matrix_without_a_gap_takes_few_steps_and_one_with_a_gap_fewer():
    generator = torch.Generator().manual_seed(0)
    for matrix, most in ((torch.randn(600, 600, generator=generator), 34), (torch.diag(1 / torch.arange(1.0, 400)), 8)):
        spectrum = lanczos(Dense(matrix), generator=generator)
        assert int(spectrum.method.split()[1]) <= most


def test_the_basis_stays_orthogonal_where_one_pass_would_lose_it():
    """A matrix that is much wider than high: the diagonal of the recurrence is many times its off-diagonal."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(100, 3000, generator=generator)
    spectrum = lanczos(Dense(matrix), tolerance=1e-6, generator=generator)
    assert spectrum.values.item() == pytest.approx(top_of(matrix), rel=1e-6)
    assert spectrum.upper.item() >= top_of(matrix) >= spectrum.lower.item()


def test_the_vector_belongs_to_the_value_and_the_residual_is_its_own():
    generator = torch.Generator().manual_seed(0)
    for m, n in SHAPES:
        matrix = torch.randn(m, n, generator=generator, dtype=torch.float64)
        spectrum, vector = lanczos_vector(Dense(matrix), tolerance=0.05, generator=generator)
        sigma = spectrum.values.item()
        assert vector.norm().item() == pytest.approx(1)
        assert (matrix @ vector).norm().item() == pytest.approx(sigma, rel=1e-9)
        residual = (matrix.T @ (matrix @ vector) - sigma**2 * vector).norm().item() / sigma**2
        assert spectrum.residual.item() == pytest.approx(residual, rel=1e-3, abs=1e-13)


def test_where_the_space_is_exhausted_there_are_further_starts():
    """One start leaves a float32 bound of 1e-7 / 1e-5: four leave one of 1e-4 at most, and all have to take part."""
    generator = torch.Generator().manual_seed(0)
    for kind, steps in (("orthogonal", 4), ("two values", 8)):
        matrix = matrix_of(kind, 150, 200, generator).float()
        spectrum = lanczos(Dense(matrix), tolerance=1e-3, generator=generator)
        assert spectrum.upper.item() / spectrum.lower.item() - 1 < 2e-4, kind
        assert int(spectrum.method.split()[1]) == steps, kind


def test_an_exhausted_space_is_not_taken_for_all_there_is():
    """One direction of 400 is longer by 1e-5, and of that float32 sees less than its rounding."""
    matrix = torch.eye(400)
    matrix[0, 0] += 1e-5
    for seed in range(5):
        spectrum = lanczos(Dense(matrix), generator=torch.Generator().manual_seed(seed))
        assert int(spectrum.method.split()[1]) <= 8
        assert spectrum.upper.item() >= 1 + 1e-5


def test_a_zero_operator_is_zero():
    for shape in ((5, 3), (3, 5), (1, 1)):
        spectrum, vector = lanczos_vector(Dense(torch.zeros(shape)))
        assert [t.item() for t in (spectrum.values, spectrum.lower, spectrum.upper, spectrum.residual)] == [0, 0, 0, 0]
        assert spectrum.method == "zero"
        assert vector.norm().item() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_the_smallest_shapes_are_exact_to_rounding(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spectrum = lanczos(Dense(matrix))
    assert spectrum.lower.item() <= top_of(matrix) <= spectrum.upper.item()
    assert spectrum.upper.item() / spectrum.lower.item() - 1 < 1e-5


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-10, 1e10, 1e30, 2e37])
@pytest.mark.parametrize("shape", [(30, 40), (40, 30)])
def test_squares_neither_vanish_nor_overflow(scale, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
    spectrum = lanczos(Dense(matrix), generator=torch.Generator().manual_seed(1))
    assert spectrum.lower.item() <= top_of(matrix) <= spectrum.upper.item() <= 1.0101 * spectrum.lower.item()


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e30])
def test_the_residual_has_no_unit(scale):
    matrix = torch.randn(60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum, vector = lanczos_vector(Dense(matrix * scale), generator=torch.Generator().manual_seed(1))
    square = (spectrum.values.item() / scale) ** 2
    residual = (matrix.T @ (matrix @ vector) - square * vector).norm().item() / square
    assert spectrum.residual.item() == pytest.approx(residual, rel=1e-3, abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 2])
def test_long_sums_of_thin_matrices_are_allowed_their_rounding(dtype, width):
    """A product with one of these is a sum of 50,000 elements one by one, off by 800 roundoffs and more."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        matrix = torch.rand(50000, width, generator=generator).to(dtype)
        truth = torch.linalg.eigvalsh(matrix.double().mT @ matrix.double())[-1].sqrt().item()
        for stored in (matrix, matrix.mT.contiguous()):
            spectrum = lanczos(Dense(stored), generator=generator)
            assert spectrum.lower.item() <= truth <= spectrum.upper.item()


def test_a_tolerance_below_rounding_is_said_not_to_be_reached():
    matrix = torch.diag(1 / torch.arange(1.0, 400))
    spectrum = lanczos(Dense(matrix), tolerance=1e-9, max_steps=120, generator=torch.Generator().manual_seed(1))
    assert spectrum.method.endswith("tolerance 1e-09 not reached")
    assert spectrum.lower.item() <= top_of(matrix) <= spectrum.upper.item() < spectrum.lower.item() * (1 + 3e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_storage(dtype):
    matrix = torch.randn(30, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    spectrum = lanczos(Dense(matrix), generator=torch.Generator().manual_seed(1))
    assert spectrum.lower.item() <= top_of(matrix.float()) <= spectrum.upper.item()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_what_is_not_finite_is_counted(bad, dtype):
    matrix = torch.ones(4, 6, dtype=dtype)
    matrix[1, 2] = matrix[3, 5] = bad
    for stored in (matrix, matrix.T):
        with pytest.raises(ValueError, match="2 of 24 weights are nan or infinite"):
            lanczos(Dense(stored))


class Same(LinearOperator):
    def matvec(self, x):
        return x

    adjoint = matvec


def test_an_operator_may_give_back_what_it_was_given():
    spectrum = lanczos(Same((40, 40), torch.float32, torch.device("cpu")))
    assert spectrum.values.item() == pytest.approx(1, abs=1e-6)


class Broken(LinearOperator):
    def matvec(self, x):
        return x * torch.nan

    adjoint = matvec


def test_an_operator_without_weights_says_what_it_can():
    with pytest.raises(ValueError, match="products with the operator are nan"):
        lanczos(Broken((3, 3), torch.float32, torch.device("cpu")))


def test_steps_end_and_the_bounds_hold_still():
    matrix = torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
    spectrum = lanczos(Dense(matrix), max_steps=6, generator=torch.Generator().manual_seed(1))
    assert spectrum.method.endswith("tolerance 0.01 not reached")
    assert spectrum.lower.item() < top_of(matrix) < spectrum.upper.item() < 3 * top_of(matrix)


def test_a_promise_that_float32_cannot_keep_is_not_made():
    matrix = torch.randn(60, 60, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="operator in float64"):
        lanczos(Dense(matrix), failure=1e-9, max_steps=50, generator=torch.Generator().manual_seed(1))
    spectrum = lanczos(Dense(matrix.double()), failure=1e-9, generator=torch.Generator().manual_seed(1))
    assert spectrum.lower.item() <= top_of(matrix) <= spectrum.upper.item() <= 1.01 * spectrum.lower.item()


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"failure": 0.0}, {"failure": 1.0}, {"max_steps": 0}])
def test_arguments_are_checked(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        lanczos(Dense(torch.ones(2, 2)), **wrong)
    with pytest.raises(ValueError, match="no singular values"):
        lanczos(Dense(torch.ones(0, 2)))


def test_only_the_given_generator_is_advanced_and_it_decides():
    matrix = torch.randn(50, 50, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    first, second = (lanczos(Dense(matrix), generator=torch.Generator().manual_seed(3)).values for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_autocast_is_ignored():
    matrix = torch.randn(50, 50, generator=torch.Generator().manual_seed(0))
    expected = lanczos(Dense(matrix), generator=torch.Generator().manual_seed(3)).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lanczos(Dense(matrix), generator=torch.Generator().manual_seed(3)).values, expected)
