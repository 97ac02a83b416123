"""What a perfect sampler scores, against closed forms and against draws."""

import pytest
import torch

from lsdr.gan.measures.mode_coverage import class_coverage, mode_coverage, tail_mass
from lsdr.gan.measures.perfect_sampler import perfect_mixture_sampler, perfect_sampler
from lsdr.gan.mixtures import MIXTURES


def uniform(count):
    return torch.full((count,), 1 / count, dtype=torch.float64)


def test_modes_captured_by_few_samples():
    found = perfect_sampler(uniform(1000), 1000)
    assert found.modes.mean == pytest.approx(1000 * (1 - 0.999**1000), abs=0.5)
    assert found.high_quality is found.reverse_kl_all is None


def test_quality_is_binomial():
    tail = tail_mass(2)
    found = perfect_sampler(uniform(8), 2500, tail=tail).high_quality
    assert found.mean == pytest.approx(1 - tail, abs=4e-4)
    assert found.sd == pytest.approx((tail * (1 - tail) / 2500) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_draws_from_a_mixture_agree(name):
    mixture, count = MIXTURES[name], 500
    generator = torch.Generator().manual_seed(0)
    drawn = [mode_coverage(mixture.sample(count, generator), mixture) for _ in range(60)]
    perfect = perfect_mixture_sampler(mixture, count)
    for measure in ("high_quality", "reverse_kl", "reverse_kl_all"):
        values = torch.tensor([getattr(each, measure) for each in drawn])
        expected = getattr(perfect, measure)
        assert abs(values.mean().item() - expected.mean) < 4 * expected.sd / 60**0.5
        assert values.std().item() == pytest.approx(expected.sd, rel=0.4)


def test_unequal_classes_keep_their_divergence():
    share = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    found = perfect_sampler(share, 5000)
    drawn = class_coverage(torch.multinomial(share, 5000, True, generator=torch.Generator().manual_seed(0)), 4)
    assert drawn.modes == found.modes.mean == 3
    assert abs(drawn.reverse_kl - found.reverse_kl.mean) < 4 * found.reverse_kl.sd


def test_it_is_decided_by_its_seed():
    assert perfect_sampler(uniform(5), 10) == perfect_sampler(uniform(5), 10)
    assert perfect_sampler(uniform(5), 10) != perfect_sampler(uniform(5), 10, seed=1)


def test_a_draw_without_a_sample_of_a_mode_has_no_divergence():
    found = perfect_sampler(uniform(4), 1, tail=0.5)
    assert found.modes.mean == pytest.approx(0.5, abs=0.1)
    assert found.reverse_kl.mean == pytest.approx(torch.tensor(4.0).log().item())  # every sample that counts is alone


def test_what_are_no_probabilities():
    for wrong in (torch.tensor([0.5, 0.6]), torch.tensor([1.5, -0.5])):
        with pytest.raises(ValueError, match="sum to 1"):
            perfect_sampler(wrong, 100)
