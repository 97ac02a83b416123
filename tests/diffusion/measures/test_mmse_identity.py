"""The calibration curve against what is known: Gaussian data, Stein's identity, a mixture of two points."""

import inspect
import math

import pytest
import torch

from lsdr.diffusion.measures.mmse_identity import MMSEIdentity, mmse_identity

SIGMAS = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def white(count, variance=0.25, side=8):
    return variance**0.5 * torch.randn(count, 1, side, side, generator=seeded(99), dtype=torch.float64)


def test_the_posterior_mean_of_gaussian_data_is_calibrated(gaussian):
    optimum = gaussian(torch.zeros(1), torch.tensor(0.25))
    found = mmse_identity(optimum, white(200), SIGMAS, generator=seeded())
    truth = 0.25 * SIGMAS**2 / (0.25 + SIGMAS**2)
    torch.testing.assert_close(found.identity, truth, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.trace, 0.25 / (0.25 + SIGMAS**2), rtol=1e-6, atol=0)
    assert bool(((found.mse - truth).abs() < 4 * found.mse_error).all())
    torch.testing.assert_close(found.mse, truth, rtol=0.05, atol=0)
    assert found.calibration_gap_db < 0.2


def test_steins_identity_holds_for_a_denoiser_that_is_wrong(gaussian):
    # It takes the data to vary four times less than they do, so that its error is not what its Jacobian says.
    wrong = gaussian(torch.zeros(1), torch.tensor(0.0625))
    found = mmse_identity(wrong, white(400), SIGMAS, generator=seeded())
    shrink = 0.0625 / (0.0625 + SIGMAS**2)
    truth = (1 - shrink) ** 2 * 0.25 + shrink**2 * SIGMAS**2
    torch.testing.assert_close(found.mse, truth, rtol=0.05, atol=0)
    torch.testing.assert_close(found.sure, truth, rtol=0.1, atol=0)
    gap = 10 * (SIGMAS**2 * shrink / truth).log10()
    torch.testing.assert_close(found.gap_db, gap, rtol=0, atol=0.3)
    assert gap[1] < -1


def test_the_gap_is_positive_where_noise_comes_through(gaussian):
    found = mmse_identity(gaussian(torch.zeros(1), torch.tensor(9.0)), white(100), SIGMAS[2:], generator=seeded())
    assert float(found.gap_db) == pytest.approx(1.54, abs=0.2)


def test_steins_estimate_is_of_use_at_high_noise(tiny):
    images = white(64).float()
    found = mmse_identity(tiny, images, torch.tensor([0.05, 1.0, 50.0]), probes=4, generator=seeded())
    torch.testing.assert_close(found.sure, found.mse, rtol=0.25, atol=0)


def test_a_mixture_of_two_points():
    """D = a tanh(a x / sigma^2) for data at -a and a, one pixel at a time; the trace varies from pixel to pixel."""

    class Mixture:
        model = None

        def __call__(self, x, sigma, conditioning=None):
            return torch.tanh(x / sigma.reshape(-1, 1, 1, 1) ** 2)

    clean = torch.randn(1000, 1, 6, 6, generator=seeded(3), dtype=torch.float64).sign()
    found = mmse_identity(Mixture(), clean, torch.tensor([0.7, 1.5]), generator=seeded(), batch=1000)
    torch.testing.assert_close(found.identity, found.mse, rtol=0.05, atol=0)
    torch.testing.assert_close(found.sure, found.mse, rtol=0.1, atol=0)


def known(**changes):
    level = torch.tensor([2.0], dtype=torch.float64)
    columns = {"mse": 0.4, "mse_error": 0.0, "trace": 0.1, "trace_error": 0.0, "sure": 0.4, **changes}
    tensors = {name: torch.tensor([value], dtype=torch.float64) for name, value in columns.items()}
    return MMSEIdentity(sigma=level, estimator="forward_mode", why="", **tensors)


@pytest.mark.parametrize(
    ("changes", "gap"),
    [
        ({}, 0.0),
        ({"trace": 0.2}, 10 * math.log10(2)),
        ({"trace": -0.2}, -10.0),
        ({"trace": 0.0}, -10.0),
        ({"trace": 50.0}, 10.0),
        ({"trace": 0.0, "mse": 0.0}, 0.0),
        ({"trace": math.nan}, math.nan),
        ({"mse": math.nan}, math.nan),
    ],
)
def test_the_gap_in_decibels(changes, gap):
    assert float(known(**changes).gap_db) == pytest.approx(gap, nan_ok=True)
    assert known(**changes).calibration_gap_db == pytest.approx(abs(gap), nan_ok=True)


def test_one_level_of_several(gaussian):
    found = mmse_identity(gaussian(torch.zeros(1), torch.tensor(0.25)), white(4), SIGMAS, generator=seeded())
    part = found.at(1)
    assert part.sigma.tolist() == [0.5]
    assert part.trace.tolist() == found.trace[1:2].tolist()
    assert part.why == found.why != ""


def test_it_is_invisible_decided_by_the_generator_and_the_same_in_batches(tiny, unchanged):
    images, sigmas = white(5).float(), torch.tensor([0.3, 1.0])
    labels = torch.tensor([0, 1, 2, 0, 1])
    same = unchanged(tiny.model)
    first = mmse_identity(tiny, images, sigmas, conditioning=labels, generator=seeded())
    assert same
    again = mmse_identity(tiny, images, sigmas, conditioning=labels, generator=seeded(), batch=2)
    torch.testing.assert_close(first.mse, again.mse)
    torch.testing.assert_close(first.trace, again.trace, rtol=1e-3, atol=1e-5)
    other = mmse_identity(tiny, images, sigmas, conditioning=labels.flip(0), generator=seeded())
    assert not torch.allclose(first.mse, other.mse)
    assert not torch.allclose(first.trace, other.trace, rtol=1e-3)


@pytest.mark.parametrize("sigmas", [[0.0], [-1.0], [math.nan], [math.inf], []])
def test_levels_that_are_none_are_refused(tiny, sigmas):
    with pytest.raises(ValueError, match="noise levels"):
        mmse_identity(tiny, white(2).float(), torch.tensor(sigmas))


def test_no_images_are_refused(tiny):
    with pytest.raises(ValueError, match="need images"):
        mmse_identity(tiny, white(2).float()[:0], torch.tensor([1.0]))


def test_images_that_are_none_are_refused(tiny):
    bad = white(2).float()
    bad[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="hold 1 values that are nan"):
        mmse_identity(tiny, bad, torch.tensor([1.0]))
    with pytest.raises(TypeError, match=r"x / 127\.5"):
        inspect.unwrap(mmse_identity)(tiny, torch.zeros(2, 1, 8, 8).byte(), torch.tensor([1.0]))
    with pytest.raises(ValueError, match="one entry per image"):
        mmse_identity(tiny, white(2).float(), torch.tensor([1.0]), conditioning=torch.tensor([1]))


def test_vectors_half_precision_and_conditioning_of_any_shape():
    def denoise(x, sigma, conditioning):
        assert conditioning.shape == (len(x), 3)
        return x * conditioning.mean(1, keepdim=True)

    given = torch.tensor([[0.2, 0.2, 0.2], [0.4, 0.4, 0.4]])
    clean = torch.randn(2, 5, generator=seeded()).bfloat16()
    found = mmse_identity(denoise, clean, torch.tensor([0.002, 1.0]), conditioning=given, generator=seeded())
    torch.testing.assert_close(found.trace, torch.full((2,), 0.3, dtype=torch.float64))
    assert found.sure.isfinite().all()
