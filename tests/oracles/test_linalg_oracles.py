"""Spectra against what others compute and what theory says."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from scipy.sparse.linalg import svds

from lsdr.linalg.certify import certified_norm
from lsdr.linalg.dense import Dense
from lsdr.linalg.lanczos import lanczos, lanczos_vector
from lsdr.linalg.singular_values import short_side_vectors, singular_values
from lsdr.linalg.spectral_density import spectral_density


def gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_arpack_finds_the_same_top_pair():
    matrix = gaussian(150, 240, dtype=torch.float64)
    operator = ScipyOperator(
        matrix.shape, matvec=lambda x: matrix.numpy() @ x, rmatvec=lambda y: matrix.numpy().T @ y, dtype=np.float64
    )
    _, (value,), right = svds(operator, k=1, random_state=0)
    spectrum, vector = lanczos_vector(Dense(matrix), tolerance=1e-10, generator=torch.Generator().manual_seed(0))
    assert spectrum.values.item() == pytest.approx(value, rel=1e-9)
    assert abs(float(vector.numpy() @ right[0])) == pytest.approx(1, abs=1e-6)


def test_fifty_digits_lie_within_the_certified_bounds():
    with mpmath.workdps(50):
        for seed in range(5):
            matrix = gaussian(6, 9, seed=seed)
            truth = mpmath.svd_r(mpmath.matrix(matrix.double().tolist()), compute_uv=False)[0]
            spectrum = certified_norm(matrix)
            assert mpmath.mpf(spectrum.lower.item()) <= truth <= mpmath.mpf(spectrum.upper.item())


def test_numpy_in_float64_agrees_on_every_value_and_vector():
    matrix = gaussian(60, 45)
    _, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    np.testing.assert_allclose(singular_values(matrix).values.numpy(), values, rtol=2e-6)
    spectrum, vectors = short_side_vectors(matrix)
    np.testing.assert_allclose(np.abs(np.sum(vectors.numpy().T * right, 1)), 1, atol=1e-6)
    np.testing.assert_allclose(spectrum.values.numpy(), values, rtol=2e-6)


@pytest.mark.parametrize(("spike", "expected"), [(2.0, 2.3717), (1.0, 1.7321), (0.5, 1.7071)])
def test_the_phase_transition_of_spiked_matrices(spike, expected):
    """Baik, Ben Arous & Peche: sqrt((1 + t^2)(c + t^2)) / t for t > c^(1/4), else the edge 1 + sqrt(c)."""
    m, n = 1000, 500
    u, v = (torch.nn.functional.normalize(gaussian(k, seed=7), dim=0) for k in (m, n))
    spectrum = lanczos(
        Dense(gaussian(m, n) / math.sqrt(m) + spike * torch.outer(u, v)), generator=torch.Generator().manual_seed(0)
    )
    assert spectrum.values.item() == pytest.approx(expected, rel=0.03)


def test_the_marchenko_pastur_law():
    m, n = 1000, 500
    matrix = gaussian(m, n) / math.sqrt(m)
    density = spectral_density(Dense(matrix), steps=50, probes=8, generator=torch.Generator().manual_seed(0))
    low, high = (1 - math.sqrt(n / m)) ** 2, (1 + math.sqrt(n / m)) ** 2
    x = torch.linspace(low, high, 20001, dtype=torch.float64)
    law = ((high - x) * (x - low)).clamp_min(0).sqrt() / (2 * math.pi * n / m * x)
    cumulative = torch.cumulative_trapezoid(law, x)
    assert cumulative[-1].item() == pytest.approx(1, abs=1e-3)
    assert (density.cdf(x[1:]) - cumulative).abs().max() < 0.03
    top = lanczos(Dense(matrix), generator=torch.Generator().manual_seed(0))
    assert top.values.item() == pytest.approx(math.sqrt(high), rel=0.02)
    full = singular_values(matrix, "float32")
    assert full.values[-1].item() == pytest.approx(math.sqrt(low), rel=0.1)


def test_an_orthogonal_matrix_has_one_value():
    matrix = torch.linalg.qr(gaussian(200, 120, dtype=torch.float64))[0].float()
    top, full = lanczos(Dense(matrix)), singular_values(matrix)
    assert top.values.item() == pytest.approx(1, abs=1e-5)
    assert top.upper.item() < 1.001
    torch.testing.assert_close(full.values, torch.ones(120))
