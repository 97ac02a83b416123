import pytest
import torch

from lsdr.linalg.dense import Dense
from lsdr.linalg.spectral_density import spectral_density


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_values(values, m, n):
    left = torch.linalg.qr(torch.randn(m, len(values), generator=seeded(1), dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(n, len(values), generator=seeded(2), dtype=torch.float64))[0]
    return left * values @ right.T


@pytest.mark.parametrize("shape", [(300, 500), (500, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distribution_of_an_exact_spectrum(shape, dtype):
    values = torch.linspace(0.2, 2, 300, dtype=torch.float64) ** 2
    density = spectral_density(Dense(with_values(values, *shape).to(dtype)), steps=60, probes=20, generator=seeded())
    x = torch.linspace(0, 17, 200, dtype=torch.float64)
    exact = (values.square()[:, None] <= x).double().mean(0)
    assert (density.cdf(x) - exact).abs().max() < 0.05
    mean, error = density.mean()
    assert abs(mean - values.square().mean().item()) < 4 * error < 1
    torch.testing.assert_close(density.weights.sum(1), torch.ones(20, dtype=torch.float64), rtol=1e-5, atol=0)
    assert density.nodes.max().item() == pytest.approx(16, rel=1e-2)


def test_the_quadrature_is_exact_for_polynomials():
    """Three nodes give the moments up to the fifth of each probe's own measure."""
    matrix = torch.randn(12, 9, generator=seeded(), dtype=torch.float64)
    density = spectral_density(Dense(matrix), steps=3, probes=1, generator=seeded(5))
    full = spectral_density(Dense(matrix), steps=9, probes=1, generator=seeded(5))
    for power in range(6):
        assert density.mean(power)[0] == pytest.approx(full.mean(power)[0], rel=1e-10)
    assert density.mean(6)[0] != pytest.approx(full.mean(6)[0], rel=1e-6)
    torch.testing.assert_close(full.nodes[0].flip(0), torch.linalg.svdvals(matrix).square())


def test_few_distinct_values_end_the_recurrence():
    density = spectral_density(
        Dense(torch.diag(torch.tensor([1.0, 1, 2, 2, 0]))), steps=5, probes=400, generator=seeded()
    )
    x = torch.tensor([-0.1, 0.5, 2.0, 4.1])
    torch.testing.assert_close(density.cdf(x).float(), torch.tensor([0, 0.2, 0.6, 1]), rtol=0, atol=0.05)
    assert spectral_density(Dense(torch.zeros(3, 4))).cdf(torch.zeros(1)).item() == pytest.approx(1)


def test_the_smoothed_density_integrates_to_one():
    density = spectral_density(Dense(torch.randn(80, 100, generator=seeded())), generator=seeded())
    x = torch.linspace(-100, 600, 7001)
    assert torch.trapezoid(density.density(x, 5.0), x).item() == pytest.approx(1, abs=1e-3)
    assert density.density(x.view(1, -1), 5.0).shape == (1, 7001)
    with pytest.raises(ValueError, match="width"):
        density.density(x, 0.0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_vanish_nor_overflow(scale):
    matrix = torch.randn(20, 30, generator=seeded())
    plain = spectral_density(Dense(matrix), generator=seeded()).mean()[0]
    assert spectral_density(Dense(matrix * scale), generator=seeded()).mean()[0] == pytest.approx(
        plain * scale**2, rel=0.1
    )


def test_arguments_and_weights_are_checked():
    with pytest.raises(ValueError, match="1 or more"):
        spectral_density(Dense(torch.ones(2, 2)), steps=0)
    with pytest.raises(ValueError, match="1 of 4 weights are nan"):
        spectral_density(Dense(torch.tensor([[1.0, 2.0], [3.0, torch.nan]])))
