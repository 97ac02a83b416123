import math

import pytest
import torch

from lsdr.spectrum import Spectrum
from lsdr.statistics.marchenko_pastur import marchenko_pastur_edges, marchenko_pastur_outliers


def test_edges_of_a_square_matrix_and_of_a_vector():
    assert marchenko_pastur_edges(4, 4, 0.5) == (0, 2)
    assert marchenko_pastur_edges(9, 4) == marchenko_pastur_edges(4, 9) == (1, 5)
    assert marchenko_pastur_edges(9, 4, 0.0) == (0, 0)


def planted(strength):
    """Noise of 300 x 200 with one direction of singular value strength * sqrt(300)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, 200, generator=generator, dtype=torch.float64)
    left, right = torch.randn(300, generator=generator, dtype=torch.float64), torch.ones(200, dtype=torch.float64)
    return noise + strength * math.sqrt(300) * torch.outer(left / left.norm(), right / right.norm())


@pytest.mark.parametrize("kind", ["singular_values", "eigenvalues"])
def test_counts_planted_directions(kind):
    for strength, expected in [(0.0, 0), (3.0, 1)]:
        values = torch.linalg.svdvals(planted(strength))
        spectrum = Spectrum.of(values if kind == "singular_values" else values**2, kind)
        assert marchenko_pastur_outliers(spectrum, 300, 200) == expected
        assert marchenko_pastur_outliers(spectrum, 300, 200, deviation=1.0) == expected


def test_zeros_have_no_outliers():
    assert marchenko_pastur_outliers(Spectrum.of([0.0, 0.0]), 2, 3) == 0


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (3, 3, -1.0), (3, 3, math.inf), (3, 3, math.nan)])
def test_impossible_matrices_are_refused(arguments):
    with pytest.raises(ValueError, match=r"at least 1|finite and not negative"):
        marchenko_pastur_edges(*arguments)
    with pytest.raises(ValueError, match=r"at least 1|finite and not negative"):
        marchenko_pastur_outliers(Spectrum.of([1.0]), *arguments)
