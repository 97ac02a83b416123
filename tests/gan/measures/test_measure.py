"""All measures together on generators whose answer is known: perfect, one image, memorised, broken."""

import json
import math

import pytest
import torch
from torch import nn

from lsdr.gan.measures.catalogue import MEASURES
from lsdr.gan.measures.config import GanMeasureConfig
from lsdr.gan.measures.measure import measure_images, measure_points
from lsdr.gan.measures.perfect_sampler import perfect_sampler
from lsdr.gan.mixtures import MIXTURES, MixtureDataset

CONFIG = GanMeasureConfig(
    samples=400, class_samples=300, train_examples=400, heldout_examples=400, paths=3, path_steps=8, batch=150
)
GRID = MIXTURES["grid"]
TRAIN, HELDOUT = (MixtureDataset(GRID, 500, seed).points for seed in (0, 1))


def uniform(z):
    return torch.special.ndtr(z)


def perfect(z):
    """A draw from the grid: one latent number chooses the mode, two more the place in it."""
    mode = (uniform(z[:, 0]) * 25).long().clamp(max=24)
    return GRID.means[mode] + GRID.std * z[:, 1:]


def memorised(z):
    return TRAIN[(uniform(z[:, 0]) * 400).long().clamp(max=399)]


def one_image(z):
    return GRID.means[7].expand(len(z), 2)


def some_nan(z):
    made = perfect(z)
    made[0] = math.nan
    return made


def judge(x):
    return x.sum(1)


def points(sample, **changes):
    chosen = {"discriminator": judge, "mixture": GRID, "train": TRAIN, "heldout": HELDOUT, "config": CONFIG}
    return measure_points(sample, 3, **(chosen | changes))


@pytest.fixture(scope="module")
def of_perfect():
    return points(perfect)


def test_a_perfect_sampler_scores_what_is_said_beside_it(of_perfect):
    measures, curves, samples = of_perfect
    assert samples.shape == (400, 2)
    assert measures.keys() <= MEASURES.keys()
    for name in ("modes", "high_quality", "reverse_kl", "reverse_kl_all", "precision", "recall", "density", "coverage"):
        beside = curves["perfect"][name]
        assert abs(measures[name] - beside["mean"]) <= 4 * beside["sd"] + 0.02, name
    assert measures["modes"] == 25
    assert measures["diverged"] == 0
    assert measures["copies"] < 0.05
    assert measures["diversity_variance"] == pytest.approx(1, abs=0.1)
    assert curves["modes"]["samples"] == 400
    assert sum(curves["modes"]["counts"]) == pytest.approx(400 * measures["high_quality"])
    assert len(curves["interpolation"]["mean"]) == 8
    for part in ("train", "heldout", "fake"):
        assert sum(curves["logits"][part]) == 400
    json.dumps([measures, curves], allow_nan=False)


def test_the_discriminators_measures_are_those_of_its_outputs(of_perfect):
    measures, _, samples = of_perfect
    assert measures["gradient_norm_fake"] == pytest.approx(math.sqrt(2))
    assert measures["heldout_gap"] == pytest.approx(
        float(judge(TRAIN[:400]).mean() - judge(HELDOUT[:400]).mean()), abs=1e-4
    )
    assert measures["largest_logit"] == pytest.approx(float(torch.cat([TRAIN[:400], samples]).sum(1).abs().max()))
    alone, curves, _ = points(perfect, discriminator=None)
    assert "largest_logit" not in alone
    assert "logits" not in curves
    assert alone["diverged"] == 0


def test_one_image():
    measures, curves, _ = points(one_image)
    assert (measures["modes"], measures["high_quality"], measures["recall"]) == (1, 1.0, 0.0)
    assert measures["reverse_kl"] == pytest.approx(math.log(25))
    assert measures["coverage"] < 0.05
    assert (measures["diversity_variance"], measures["nearest_neighbour"]) == (0, 0)
    assert (measures["interpolation_jump"], measures["copies"], measures["diverged"]) == (None, 0, 0)
    assert curves["perfect"]["modes"]["mean"] == 25


def test_memorised_examples():
    measures, _, _ = points(memorised)
    assert measures["copies"] > 0.8
    assert measures["nearest_train"] == 0
    assert measures["modes"] == 25


def test_samples_that_are_not_finite():
    measures, curves, _ = points(some_nan)
    assert measures["modes"] == 25  # those that are still count
    assert measures["diverged"] == 1
    assert all(math.isnan(measures[name]) for name in ("precision", "coverage", "copies", "nearest_train"))
    assert measures["interpolation_jump"] is None
    assert math.isfinite(measures["largest_logit"])
    nothing, curves, _ = points(lambda z: perfect(z) * math.nan)
    assert (nothing["modes"], nothing["reverse_kl"], nothing["diverged"]) == (0, None, 1)
    assert "logits" not in curves


@pytest.mark.parametrize(
    ("changes", "diverged"),
    [
        ({"discriminator": lambda x: 2e4 + judge(x)}, 1),
        ({"discriminator": lambda x: judge(x) * math.nan}, 1),
        ({"discriminator": lambda x: 9e3 + judge(x)}, 0),
        ({"sample": lambda z: perfect(z) + 1}, 1),  # hardly a sample of high quality
    ],
    ids=["huge", "nan", "large", "off"],
)
def test_divergence(changes, diverged):
    assert points(changes.pop("sample", perfect), **changes)[0]["diverged"] == diverged


def test_equal_seeds_give_equal_measures_and_touch_no_other_randomness(of_perfect):
    state = torch.get_rng_state()
    again = points(perfect)
    assert torch.equal(torch.get_rng_state(), state)
    assert again[0] == of_perfect[0]
    assert torch.equal(again[2], of_perfect[2])
    assert not torch.equal(points(perfect, seed=1, discriminator=None)[2], again[2])


def images(count, seed):
    """Smooth random pictures in two classes, dark and bright."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 1, 2, 2), generator=generator) - 0.5
    coarse += torch.tensor([-0.4, 0.4])[torch.arange(count) % 2].view(-1, 1, 1, 1)
    return nn.functional.interpolate(coarse, (8, 8), mode="bilinear")


REAL, UNSEEN = images(400, 0), images(400, 1)


def draw(z):
    coarse = uniform(z[:, :4]) - 0.5 + 0.4 * z[:, 4:].sign()
    return nn.functional.interpolate(coarse.view(-1, 1, 2, 2), (8, 8), mode="bilinear")


def classify(x):
    return (x.mean((1, 2, 3)) > 0).long()


def of_images(sample, **changes):
    chosen = {"train": REAL, "heldout": UNSEEN, "extractor": nn.Sequential(nn.AvgPool2d(4), nn.Flatten())}
    with_classes = {"classify": classify, "probabilities": torch.tensor([0.5, 0.5])}
    return measure_images(sample, 5, **(chosen | with_classes | {"config": CONFIG} | changes))


def test_images_of_a_perfect_sampler():
    measures, curves, samples = of_images(draw, discriminator=lambda x: x.mean((1, 2, 3)))
    assert samples.shape == (400, 1, 8, 8)
    assert measures.keys() <= MEASURES.keys()
    assert (measures["modes"], curves["modes"]["samples"]) == (2, 300)
    assert "high_quality" not in measures
    for name in ("precision", "recall", "density", "coverage"):
        assert measures[name] == pytest.approx(curves["perfect"][name]["mean"], abs=0.1)
    assert measures["fid"] < 0.05
    assert curves["perfect"]["fid"]["mean"] < 0.05
    expected = perfect_sampler(torch.tensor([0.5, 0.5]), 300).reverse_kl
    assert curves["perfect"]["reverse_kl"] == {"mean": expected.mean, "sd": expected.sd}
    assert measures["psd_rmse_db"] < 1
    assert measures["copies"] < 0.05
    assert measures["diverged"] == 0
    json.dumps([measures, curves], allow_nan=False)


def test_images_collapsed_and_broken():
    collapsed, _, samples = of_images(lambda z: 3 * REAL[:1].expand(len(z), -1, -1, -1))
    assert (collapsed["modes"], collapsed["recall"]) == (1, 0)
    assert samples.abs().max() <= 1  # clipped as in a picture
    assert collapsed["fid"] > 0.05
    broken, curves, _ = of_images(lambda z: draw(z) * math.nan, classify=None, probabilities=None)
    assert broken["diverged"] == 1
    assert all(math.isnan(broken[name]) for name in ("fid", "kid", "precision", "psd_rmse_db", "copies"))
    assert "modes" not in broken
    assert curves["perfect"] == {}


def test_few_heldout_images_stand_for_nothing_and_fresh_ones_for_a_perfect_sampler():
    _, curves, _ = of_images(draw, heldout=UNSEEN[:100])
    assert "recall" not in curves["perfect"]
    assert curves["perfect"]["modes"]["mean"] == 2
    _, curves, _ = of_images(draw, heldout=UNSEEN[:100], fresh=UNSEEN)
    assert curves["perfect"]["recall"]["mean"] > 0.8


def test_classes_need_their_probabilities():
    with pytest.raises(ValueError, match="or neither"):
        of_images(draw, probabilities=None)


def test_sizes_that_cannot_be_measured_with():
    with pytest.raises(ValueError, match="samples must be at least 20"):
        GanMeasureConfig(samples=19)
    with pytest.raises(ValueError, match="neighbours=30"):
        GanMeasureConfig(neighbours=30, samples=30)
