"""Statistics against NumPy and SciPy, and against random-matrix theory."""

import numpy as np
import pytest
import scipy.stats
import torch

from lsdr.spectrum import Spectrum
from lsdr.statistics.condition_number import condition_number
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.marchenko_pastur import marchenko_pastur_edges
from lsdr.statistics.participation_ratio import participation_ratio
from lsdr.statistics.power_law_exponent import power_law_exponent
from lsdr.statistics.spectral_entropy import spectral_entropy
from lsdr.statistics.stable_rank import stable_rank


@pytest.fixture(params=range(3))
def matrix(request):
    return np.random.default_rng(request.param).normal(size=(20, 30)) * np.geomspace(1, 1e-3, 30)


def test_against_numpy_and_scipy(matrix):
    sigma = np.linalg.svd(matrix, compute_uv=False)
    spectrum = Spectrum.of(sigma)
    gram = matrix @ matrix.T
    close = {"rtol": 1e-9}
    np.testing.assert_allclose(effective_rank(spectrum), np.exp(scipy.stats.entropy(sigma)), **close)
    np.testing.assert_allclose(spectral_entropy(spectrum), scipy.stats.entropy(sigma**2), **close)
    np.testing.assert_allclose(
        stable_rank(spectrum), (np.linalg.norm(matrix) / np.linalg.norm(matrix, 2)) ** 2, **close
    )
    np.testing.assert_allclose(participation_ratio(spectrum), np.trace(gram) ** 2 / np.sum(gram**2), **close)
    np.testing.assert_allclose(condition_number(spectrum), np.linalg.cond(matrix), **close)


@pytest.mark.parametrize("seed", range(3))
def test_power_law_against_scipy_on_every_tail(seed):
    """SciPy's Pareto fit and Kolmogorov-Smirnov test, tail by tail."""
    squares = np.sort(scipy.stats.pareto(1.5).rvs(60, random_state=seed) + 0.5)
    found = power_law_exponent(Spectrum.of(squares, "eigenvalues"))
    fits = []
    for start in range(len(squares) - 1):
        tail = squares[start:]
        shape, _, scale = scipy.stats.pareto.fit(tail, floc=0, fscale=tail[0])
        fits.append((scipy.stats.kstest(tail, scipy.stats.pareto(shape, scale=scale).cdf).statistic, shape + 1, tail))
    distance, exponent, tail = min(fits, key=lambda fit: fit[0])
    np.testing.assert_allclose(found.distance, distance, rtol=1e-6)
    np.testing.assert_allclose(found.exponent, exponent, rtol=1e-6)
    assert found.count == len(tail)
    np.testing.assert_allclose([found.xmin, found.xmax], [tail[0], tail[-1]])


def test_marchenko_pastur_edge_of_a_wishart_matrix():
    """2000 x 1000, entries of variance 1/2000: the edge is 1 + 1/sqrt(2)."""
    generator = torch.Generator().manual_seed(0)
    entries = torch.randn(2000, 1000, generator=generator, dtype=torch.float64) / 2000**0.5
    eigenvalues = torch.linalg.eigvalsh(entries.T @ entries)
    lower, upper = marchenko_pastur_edges(2000, 1000, 2000**-0.5)
    np.testing.assert_allclose(upper, 1.7071067811865475, rtol=1e-12)
    np.testing.assert_allclose(eigenvalues[-1].sqrt(), upper, atol=0.02)
    np.testing.assert_allclose(eigenvalues[0].sqrt(), lower, atol=0.02)
