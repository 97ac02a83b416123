from fractions import Fraction

import pytest
import torch

from lsdr.linalg.certify import certified_norm


def gram_of(matrix):
    rows = [[Fraction(x) for x in row] for row in matrix.double().tolist()]
    return [[sum(a * b for a, b in zip(p, q, strict=True)) for q in rows] for p in rows]


def eigenvalues_above(gram, bound):
    """How many eigenvalues of a matrix of fractions are above the bound: exactly, by Sylvester's law of inertia."""
    k = len(gram)
    s = [[(bound if i == j else 0) - gram[i][j] for j in range(k)] for i in range(k)]
    negative = 0
    for i in range(k):
        pivot = s[i][i]
        assert pivot != 0
        negative += pivot < 0
        for j in range(i + 1, k):
            factor = s[j][i] / pivot
            s[j] = [a - factor * b for a, b in zip(s[j], s[i], strict=True)]
    return negative


def matrices(count):
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        matrix = torch.randn(4, 5 + index % 3, generator=generator, dtype=torch.float64)
        yield (matrix if index % 2 else matrix.T).to((torch.float32, torch.float64, torch.float16)[index % 3])


def short(matrix):
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def test_the_bounds_are_proved_right_by_exact_arithmetic():
    for matrix in matrices(30):
        spectrum, gram = certified_norm(matrix), gram_of(short(matrix))
        assert eigenvalues_above(gram, Fraction(spectrum.upper.item()) ** 2) == 0
        assert eigenvalues_above(gram, Fraction(spectrum.lower.item()) ** 2) >= 1
        assert spectrum.upper.item() <= spectrum.lower.item() * (1 + 1e-13)
        assert spectrum.lower <= spectrum.values <= spectrum.upper


def test_orthogonal_matrices_whose_eigenvalues_a_search_for_one_of_them_misses():
    for seed in range(8):
        draw = torch.randn(32, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        spectrum = certified_norm(torch.linalg.qr(draw)[0])
        assert spectrum.lower.item() == pytest.approx(1, abs=1e-12)
        assert spectrum.upper.item() == pytest.approx(1, abs=1e-12)


def test_a_float32_gram_matrix_is_no_bound_where_this_is_one():
    below = 0
    for matrix in matrices(30):
        wide, gram = short(matrix).float(), gram_of(short(matrix.float()))
        single = torch.linalg.eigvalsh(wide @ wide.T)[-1].item()
        below += eigenvalues_above(gram, Fraction(single)) > 0
        assert eigenvalues_above(gram, Fraction(certified_norm(matrix.float()).upper.item()) ** 2) == 0
    assert below > 5


def test_sums_that_round_all_one_way_are_covered():
    """1 and many small numbers: each square is lost below half a unit of the last place, or counts double above it."""
    for squared in (0.98, 1.02):
        row = torch.full((4000,), (squared * 2.0**-53) ** 0.5, dtype=torch.float64)
        row[0] = 1
        norm = sum(Fraction(x) ** 2 for x in row.tolist())
        column = row[:300]
        both = {1: (row.view(1, -1), norm), 300: (column[:, None].expand(300, 300), None)}
        for count, (matrix, square) in both.items():
            square = square or count * sum(Fraction(x) ** 2 for x in column.tolist())
            spectrum = certified_norm(matrix)
            assert Fraction(spectrum.lower.item()) ** 2 <= square <= Fraction(spectrum.upper.item()) ** 2


@pytest.mark.parametrize("scale", [1e-315, 1e-300, 1e-30, 1e30, 1e300])
def test_any_scale(scale):
    matrix = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
    spectrum, gram = certified_norm(matrix), gram_of(matrix)
    assert eigenvalues_above(gram, Fraction(spectrum.upper.item()) ** 2) == 0
    assert eigenvalues_above(gram, Fraction(spectrum.lower.item()) ** 2) >= 1
    assert spectrum.upper.item() <= spectrum.lower.item() * (1 + 1e-7)


def test_larger_matrices_stay_tight():
    matrix = torch.randn(150, 400, generator=torch.Generator().manual_seed(0))
    for form in (matrix, matrix.T, matrix[:, :1] @ matrix[:1], torch.eye(90)):
        spectrum = certified_norm(form)
        truth = torch.linalg.svdvals(form.double())[0].item()
        assert spectrum.lower.item() * (1 - 1e-14) <= truth <= spectrum.upper.item() * (1 + 1e-14)
        assert spectrum.upper.item() <= spectrum.lower.item() * (1 + 1e-11)


def test_special_matrices():
    zero = certified_norm(torch.zeros(3, 4))
    assert zero.values.item() == zero.lower.item() == zero.upper.item() == 0
    one = certified_norm(torch.tensor([[-0.1]], dtype=torch.float64))
    assert one.lower.item() <= 0.1 <= one.upper.item()
    matrix = torch.ones(4, 6)
    matrix[1, 2] = torch.nan
    with pytest.raises(ValueError, match="1 of 24 weights are nan"):
        certified_norm(matrix)
    with pytest.raises(ValueError, match="rows and columns"):
        certified_norm(torch.ones(0, 4))
