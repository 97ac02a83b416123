"""The held-out loss against the error of optimal denoisers."""

import pytest
import torch

from lsdr.diffusion.measures.heldout_loss import heldout_loss
from lsdr.diffusion.weighting import edm_weight


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, variance, seed=1):
    return variance**0.5 * torch.randn(count, 1, 4, 4, dtype=torch.float64, generator=generator(seed))


def test_the_optimal_denoiser_scores_the_minimum_mean_square_error(gaussian):
    variance = 0.25
    result = heldout_loss(
        gaussian(torch.tensor(0.0), torch.tensor(variance)),
        images(4000, variance),
        weight=torch.ones_like,
        bands=4,
        generator=generator(),
    )
    middles = (torch.arange(4 * 4000, dtype=torch.float64) + 0.5) / (4 * 4000)
    sigma = gaussian(None, None).draw_sigma(middles)
    expected = (variance * sigma**2 / (variance + sigma**2)).view(4, 4000).mean(1)
    torch.testing.assert_close(result.loss, expected, rtol=0.02, atol=0)
    torch.testing.assert_close(result.mean, expected.mean(), rtol=0.02, atol=0)


def test_edm_weighting_is_the_default_and_makes_the_optimum_of_edm_data_one(gaussian):
    # D = 0 at variance sigma_data^2 = 1/4 has error 1/4, weight 4 + 1/sigma^2; the optimum has error x weight = 1.
    optimum = gaussian(torch.tensor(0.0), torch.tensor(0.25))
    result = heldout_loss(optimum, images(2000, 0.25), generator=generator())
    torch.testing.assert_close(result.loss, torch.ones(9, dtype=torch.float64), rtol=0.03, atol=0)
    weighted = heldout_loss(optimum, images(2000, 0.25), weight=edm_weight, generator=generator())
    assert torch.equal(weighted.loss, result.loss)


def test_bands_rise_in_noise_and_have_equal_probability(gaussian):
    levels = []

    def weight(sigma):
        levels.append(sigma)
        return torch.ones_like(sigma)

    denoiser = gaussian(torch.tensor(0.0), torch.tensor(1.0))
    result = heldout_loss(denoiser, images(100, 1.0), weight=weight, bands=5, batch=100, generator=generator())
    edges = denoiser.draw_sigma(torch.linspace(0, 1, 6, dtype=torch.float64))
    for band, seen in enumerate(levels):
        assert (seen > edges[band]).all()
        assert (seen < edges[band + 1]).all()
        # Stratified: one level in every hundredth of the band, in random order.
        assert torch.equal(seen.sort().values.unique(), seen.sort().values)
        assert not torch.equal(seen.sort().values, seen)
    torch.testing.assert_close(result.sigma, denoiser.draw_sigma((torch.arange(5).double() + 0.5) / 5))


def test_thirds_are_means_of_neighbouring_bands(gaussian):
    result = heldout_loss(gaussian(torch.tensor(0.0), torch.tensor(1.0)), images(10, 1.0), generator=generator())
    low, mid, high = result.thirds
    assert torch.equal(low, result.loss[:3].mean())
    assert torch.equal(mid, result.loss[3:6].mean())
    assert torch.equal(high, result.loss[6:].mean())


def test_every_method_sees_the_same_noisy_images(gaussian):
    seen = {}

    def spy(name):
        class Spy(gaussian):
            def __call__(self, x, sigma, conditioning=None):
                seen.setdefault(name, []).append(x.clone())
                torch.rand(3)  # a model that draws must not shift what the next call sees
                return super().__call__(x, sigma)

        return Spy(torch.tensor(0.0), torch.tensor(1.0))

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        heldout_loss(spy(name), images(5, 1.0), generator=generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(seen["a"], seen["b"], strict=True))
    assert not torch.equal(seen["a"][0], seen["c"][0])


def test_batches_change_nothing_and_labels_stay_with_their_images(tiny):
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    pixels = images(7, 0.25).float()

    def measured(**kwargs):
        return heldout_loss(tiny, pixels, generator=generator(), **kwargs).loss

    torch.testing.assert_close(measured(labels=labels, batch=3), measured(labels=labels, batch=7))
    assert not torch.allclose(measured(labels=labels), measured(labels=labels.flip(0)))
    assert not torch.allclose(measured(labels=labels), measured())


def test_measuring_is_invisible(tiny, unchanged):
    same = unchanged(tiny.model)
    first = heldout_loss(tiny, images(5, 0.25).float(), generator=generator())
    second = heldout_loss(tiny, images(5, 0.25).float(), generator=generator())
    assert same
    assert torch.equal(first.loss, second.loss)  # dropout is off
    assert not first.loss.requires_grad


@pytest.mark.parametrize(("count", "bands"), [(0, 9), (4, 2)])
def test_too_little_to_measure_is_refused(gaussian, count, bands):
    with pytest.raises(ValueError, match=f"{count} images and {bands} bands"):
        heldout_loss(gaussian(torch.tensor(0.0), torch.tensor(1.0)), images(count, 1.0), bands=bands)
