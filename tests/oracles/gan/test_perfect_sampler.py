"""What a perfect sampler scores, against expansions of the entropy's bias and MNIST's digit frequencies."""

import math

import pytest
import torch

from lsdr.gan.measures.perfect_sampler import perfect_mixture_sampler, perfect_sampler
from lsdr.gan.mixtures import MIXTURES

# Digits 0 ... 9 of MNIST's 60,000 training images, as the file of labels counts them.
MNIST = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], dtype=torch.float64)


def bias(modes, samples):
    """Miller and Madow's first term of the plug-in entropy's bias, and the next one, for equally likely modes."""
    return (modes - 1) / (2 * samples) + (modes**2 - 1) / (12 * samples**2)


@pytest.mark.parametrize(("name", "printed"), [("ring", 0.0014), ("grid", 0.0049)])
def test_mixtures_at_2500_samples(name, printed):
    found = perfect_mixture_sampler(MIXTURES[name], 2500)
    kept = 2500 * (1 - math.exp(-4.5))
    error = found.reverse_kl.sd / 500**0.5
    assert abs(found.reverse_kl.mean - bias(MIXTURES[name].modes, kept)) < 4 * error
    assert found.reverse_kl.mean == pytest.approx(printed, abs=2e-4)
    # A chi-squared variable of modes - 1 degrees of freedom, over twice the samples.
    assert found.reverse_kl.sd == pytest.approx(math.sqrt(2 * (MIXTURES[name].modes - 1)) / (2 * kept), rel=0.15)
    assert found.high_quality.mean == pytest.approx(0.989, abs=5e-4)
    assert found.modes.mean == MIXTURES[name].modes


def test_stacked_digits_at_26000_samples():
    uniform = perfect_sampler(torch.full((1000,), 1e-3, dtype=torch.float64), 26_000)
    assert uniform.reverse_kl.mean == pytest.approx(0.0192, abs=2e-4)
    assert abs(uniform.reverse_kl.mean - bias(1000, 26_000)) < 4 * uniform.reverse_kl.sd / 500**0.5
    share = MNIST / MNIST.sum()
    found = perfect_sampler(torch.einsum("a,b,c->abc", share, share, share).flatten(), 26_000)
    # Three independent digits: three times the divergence of one, plus the bias.
    one = float((share * (10 * share).log()).sum())
    assert abs(found.reverse_kl.mean - 3 * one - bias(1000, 26_000)) < 2e-4
    assert found.reverse_kl.mean == pytest.approx(0.0235, abs=2e-4)
    assert found.modes.mean == pytest.approx(1000, abs=0.01)
