import pytest
import torch

from lsdr.gan.latent_noise import latent_noise


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_prior_stays_as_it_is(strength):
    """z' = a z + b e with a^2 + b^2 = 1 is exactly standard normal; the correlation with z is a."""
    z, e = torch.eye(2, dtype=torch.float64)[:, None]  # (z, e) = (1, 0), then (0, 1): the map's coefficients
    a, b = latent_noise(torch.stack([z, 0 * z]), strength, noise=torch.stack([0 * e, e])).flatten(1).max(1).values
    assert a**2 + b**2 == pytest.approx(1, abs=1e-14)
    assert b == pytest.approx(strength)


def test_drawn_from_a_generator():
    z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    mixed = latent_noise(z, 0.6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mixed, latent_noise(z, 0.6, generator=torch.Generator().manual_seed(1)))
    both = torch.corrcoef(torch.stack([z[:, 0], mixed[:, 0], mixed[:, 1]]))
    torch.testing.assert_close(both[0], torch.tensor([1, 0.8, 0]), atol=0.02, rtol=0)
    assert mixed.std().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(latent_noise(z, 0.0), z)


def test_one_strength_an_example():
    z, noise = torch.ones(2, 3), torch.full((2, 3), 2.0)
    found = latent_noise(z, torch.tensor([0.0, 1.0]), noise=noise)
    assert found.tolist() == [[1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_wrong_strength(strength):
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\]"):
        latent_noise(torch.zeros(1, 1), strength)
