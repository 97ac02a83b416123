"""A network's output read as it was trained, and read otherwise."""

import itertools

import pytest
import torch

from lsdr.data.load import load_images
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.measures.prediction_check import READINGS, prediction_check, read_as


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits").__getitems__(range(400))["image"].float() / 127.5 - 1


@pytest.mark.parametrize(("trained", "read"), list(itertools.product(READINGS, READINGS)))
def test_the_reading_that_fits_is_named(digits, wiener, trained, read):
    network = wiener(digits, trained).double()
    found = prediction_check(read_as(read, network), digits[:48], generator=seeded())
    assert found.reading == read
    if trained == read:
        assert found.fits is None
        assert found.message is None
        assert found.trained
        assert bool((found.error < 1.1 * found.trivial).all())
        assert found.others == {}
    else:
        assert found.fits == trained
        assert f"seems to predict {trained}, not {read}" in found.message
        assert f"prediction='{trained}'" in found.message


@pytest.mark.parametrize("read", READINGS)
def test_an_untrained_network_is_no_error(digits, tiny, read):
    found = prediction_check(read_as(read, tiny.model), digits[:48], generator=seeded())
    assert found.fits is None
    assert not found.trained


def test_a_silent_network_is_not_taken_for_an_edm_one():
    images = 0.5 * torch.randn(48, 1, 8, 8, generator=seeded(1))  # that reading alone denoises them as well as can be
    silent = DDPMDenoiser(lambda x, t: torch.zeros_like(x), torch.linspace(0.99, 0.001, 100), "epsilon")
    found = prediction_check(silent, images, generator=seeded())
    assert found.fits is None
    assert len(found.others) == 4


def test_errors_are_those_of_the_denoiser(gaussian):
    images = 0.5 * torch.randn(400, 1, 4, 4, generator=seeded(1))
    found = prediction_check(gaussian(torch.zeros(1), torch.tensor(0.25)), images, levels=3, generator=seeded())
    assert found.reading is None
    torch.testing.assert_close(found.sigma, 0.5 * torch.tensor([0.1, 1.0, 10.0]).double(), rtol=0.05, atol=0)
    torch.testing.assert_close(found.error, 0.25 * found.sigma**2 / (0.25 + found.sigma**2), rtol=0.05, atol=0)
    torch.testing.assert_close(found.linear, found.error, rtol=0.05, atol=0)
    torch.testing.assert_close(found.trivial, torch.minimum(found.sigma**2, torch.tensor(0.25)), rtol=0.05, atol=0)
    assert found.relative < 1


def test_a_denoiser_of_another_kind_has_its_network_read_too(digits, wiener):
    class Other(EDMDenoiser):
        def __call__(self, x, sigma, conditioning=None):
            return x

    found = prediction_check(Other(wiener(digits, "edm").double()), digits[:32], generator=seeded())
    assert (found.reading, found.fits) == (None, "edm")
    assert "not what its denoiser takes it for" in found.message


def test_a_schedule_without_signal_at_its_end_can_be_read_as_epsilon_too(digits):
    table = torch.cat([torch.linspace(0.99, 0.01, 50), torch.zeros(1)])
    assert read_as("epsilon", None, table).sigma_max < read_as("v", None, table).sigma_max


def test_it_is_invisible_and_conditioned(tiny, unchanged):
    images, labels = 0.5 * torch.randn(6, 1, 4, 4, generator=seeded(1)), torch.tensor([0, 1, 2, 0, 1, 2])
    same = unchanged(tiny.model)
    first = prediction_check(tiny, images, conditioning=labels, generator=seeded())
    assert same
    again = prediction_check(tiny, images, conditioning=labels, generator=seeded(), batch=4)
    torch.testing.assert_close(first.error, again.error)
    other = prediction_check(tiny, images, conditioning=labels.flip(0), generator=seeded())
    assert not torch.allclose(first.error, other.error)


def test_what_cannot_be_checked_is_refused(tiny):
    with pytest.raises(ValueError, match="all the same"):
        prediction_check(tiny, torch.ones(3, 1, 4, 4))
    with pytest.raises(ValueError, match="2 values that are nan"):
        prediction_check(tiny, torch.full((1, 1, 1, 2), torch.nan))
    with pytest.raises(ValueError, match="at least one image"):
        prediction_check(tiny, torch.ones(0, 1, 4, 4))
    with pytest.raises(ValueError, match="expected one of epsilon, v"):
        read_as("x0", None)
