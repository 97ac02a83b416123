"""All measures of a trained GAN, on common random numbers, beside what a perfect sampler scores."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.gan.measures.config import GanMeasureConfig
from lsdr.gan.measures.interpolation import Sampler, interpolation
from lsdr.gan.measures.memorisation import memorisation
from lsdr.gan.measures.mode_coverage import ModeCoverage, class_coverage, mode_coverage
from lsdr.gan.measures.overfitting import Discriminator, overfitting
from lsdr.gan.measures.perfect_sampler import Estimate, PerfectSampler, perfect_mixture_sampler, perfect_sampler
from lsdr.gan.mixtures import Mixture
from lsdr.measures.diversity import diversity
from lsdr.measures.feature_distance import feature_distance
from lsdr.measures.power_spectrum_error import power_spectrum_error
from lsdr.measures.precision_recall import PrecisionRecall, precision_recall
from lsdr.probes.evaluating import evaluating

Measures = dict[str, float | None]
Curves = dict[str, Any]

_NEIGHBOURS = ("precision", "recall", "density", "coverage")
_NEAR = ("diversity_variance", "nearest_neighbour", "nearest_train", "copies")
_OF_IMAGES = ("fid", "kid", "psd_rmse_db")
_LARGEST_LOGIT = 1e4
_LEAST_QUALITY = 0.01
_REPEATS = 5  # fresh draws whose precision and recall stand for a perfect sampler's
_BINS = 40


def measure_points(
    sample: Sampler,
    latent_dim: int,
    *,
    discriminator: Discriminator | None = None,
    mixture: Mixture,
    train: Float[Tensor, "n d"],
    heldout: Float[Tensor, "m d"],
    seed: int = 0,
    config: GanMeasureConfig | None = None,
) -> tuple[Measures, Curves, Float[Tensor, "k d"]]:
    """Measure a generator of points: modes, precision and recall, overfitting, memorisation, smoothness.

    Two generators measured with the same seed and latent get the same latent points, so that differences are theirs.
    Each measure draws from a generator of its own. Give the networks as they are to be used: in evaluation mode, with
    averaged weights, noise off. Invisible: no parameter gets a gradient, the global random state stays as it is.
    Samples that are not finite belong to no mode; whatever cannot be measured with them is nan.

    Args:
        sample: Maps standard normal latent points (n, latent_dim) to points (n, d), with no randomness besides.
        latent_dim: Dimensions of the latent.
        discriminator: Maps points to outputs; None leaves its measures out.
        mixture: Where the data come from.
        train: Training points; the first `config.train_examples` are used.
        heldout: Points of the same mixture that were not trained on; the first `config.heldout_examples` are used.
        seed: Decides all random numbers.
        config: Sizes.

    Returns:
        Measures by the names of `catalogue.MEASURES`; curves: "modes", samples of each mode, "perfect", mean and
        standard deviation of what draws from the mixture score, "interpolation", "logits"; the samples.
    """
    config = config or GanMeasureConfig()
    train, heldout = train[: config.train_examples], heldout[: config.heldout_examples]
    samples = _draw(sample, latent_dim, config.samples, config.batch, train.device, _generator(seed, 0))
    found = mode_coverage(samples, mixture)
    measures, curves = _of_modes(found, perfect_mixture_sampler(mixture, config.samples))
    measures["high_quality"], measures["reverse_kl_all"] = found.high_quality, found.reverse_kl_all
    fresh = [_fresh(mixture, config, train, _generator(seed, 10 + each)) for each in range(_REPEATS)]
    curves["perfect"] |= {name: _spread([getattr(each, name) for each in fresh]) for name in _NEIGHBOURS}

    finite = bool(samples.isfinite().all())
    if finite:
        measures |= _of_neighbours(samples, train, config)
        measures |= _of_distances(samples[..., None, None], train[..., None, None], heldout)
    else:
        measures |= dict.fromkeys((*_NEIGHBOURS, *_NEAR), math.nan)
    measures |= _of_path(sample, latent_dim, train.device, seed, config, curves)
    measures |= _of_discriminator(discriminator, train, heldout, samples, config, curves)
    measures["diverged"] = _diverged(measures, finite, found.high_quality)
    return measures, curves, samples


def measure_images(
    sample: Sampler,
    latent_dim: int,
    *,
    discriminator: Discriminator | None = None,
    train: Float[Tensor, "n c h w"],
    heldout: Float[Tensor, "m c h w"],
    extractor: nn.Module,
    classify: Callable[[Tensor], Tensor] | None = None,
    probabilities: Float[Tensor, " classes"] | None = None,
    fresh: Float[Tensor, "k c h w"] | None = None,
    seed: int = 0,
    config: GanMeasureConfig | None = None,
) -> tuple[Measures, Curves, Float[Tensor, "k c h w"]]:
    """Measure a generator of images: realism and coverage in features, classes, overfitting, memorisation, smoothness.

    As `measure_points`; precision, recall, density, coverage, FID and KID compare the extractor's features of samples
    with those of training images, `copies` pixels. Samples are clipped to [-1, 1], as in a picture. Beside these stands
    what real images score that are not among the training images, where there are as many of them as of samples: a
    perfect generator would draw such.

    Args:
        sample: Maps standard normal latent points (n, latent_dim) to images (n, c, h, w) in [-1, 1].
        latent_dim: Dimensions of the latent.
        discriminator: Maps images to outputs; None leaves its measures out.
        train: Training images in [-1, 1]; the first `config.train_examples` are used.
        heldout: Images that were not trained on; the first `config.heldout_examples` are used.
        extractor: Maps images to features (n, d).
        classify: Maps images to classes, -1 for none, for the modes covered by `config.class_samples` samples.
        probabilities: How likely each class is in the data; given with `classify`.
        fresh: More images like the training images, to stand for a perfect generator's samples; the held-out ones by
            default. Of stacked digits, new triples of the training digits: held-out pictures show few digits, often.
        seed: Decides all random numbers.
        config: Sizes.

    Returns:
        Measures by the names of `catalogue.MEASURES`; curves as of `measure_points`; the clipped samples.

    Raises:
        ValueError: If only one of `classify` and `probabilities` is given.
    """
    if (classify is None) != (probabilities is None):
        raise ValueError("give both what classifies samples and how likely each class is, or neither")
    config = config or GanMeasureConfig()
    train, heldout = train[: config.train_examples], heldout[: config.heldout_examples]
    device = train.device
    samples = _draw(sample, latent_dim, config.samples, config.batch, device, _generator(seed, 0)).clamp(-1, 1)
    measures, curves = dict[str, float | None](), {"perfect": dict[str, Any]()}
    if classify is not None and probabilities is not None:
        many = _batches(sample, latent_dim, config.class_samples, config.batch, device, _generator(seed, 1))
        labels = torch.cat([classify(part.clamp(-1, 1)) for part in many])
        found = class_coverage(labels, len(probabilities))
        measures, curves = _of_modes(found, perfect_sampler(probabilities, config.class_samples))

    finite = bool(samples.isfinite().all())
    if finite:
        with evaluating(extractor), torch.no_grad():
            made, real, others = (
                torch.cat([extractor(part) for part in images.split(config.batch)])
                for images in (samples, train, heldout if fresh is None else fresh[: config.samples])
            )
        measures |= _of_neighbours(made, real, config) | _of_features(made, real, seed)
        measures |= _of_distances(samples, train, heldout.flatten(1))
        measures["psd_rmse_db"] = float(power_spectrum_error(samples, train).overall)
        curves["perfect"] |= _of_real(others, real, seed, config)
    else:
        measures |= dict.fromkeys((*_NEIGHBOURS, *_NEAR, *_OF_IMAGES), math.nan)
    measures |= _of_path(sample, latent_dim, device, seed, config, curves)
    measures |= _of_discriminator(discriminator, train, heldout, samples, config, curves)
    measures["diverged"] = _diverged(measures, finite, None)
    return measures, curves, samples


def _draw(
    sample: Sampler, latent_dim: int, count: int, batch: int, device: torch.device, generator: torch.Generator
) -> Tensor:
    return torch.cat([*_batches(sample, latent_dim, count, batch, device, generator)])


def _batches(
    sample: Sampler, latent_dim: int, count: int, batch: int, device: torch.device, generator: torch.Generator
) -> Iterator[Tensor]:
    """Samples, some at a time: the latents of a generator that takes off noise are larger than its samples."""
    for start in range(0, count, batch):
        latents = torch.randn((min(batch, count - start), latent_dim), generator=generator)
        with torch.no_grad():
            yield sample(latents.to(device))


def _of_modes(found: ModeCoverage, perfect: PerfectSampler) -> tuple[Measures, Curves]:
    """Modes and their divergence, with a perfect sampler's."""
    measures: Measures = {"modes": float(found.modes), "reverse_kl": found.reverse_kl}
    beside = {name: value for name, value in asdict(perfect).items() if value is not None}
    return measures, {"modes": {"counts": found.counts.tolist(), "samples": found.samples}, "perfect": beside}


def _fresh(mixture: Mixture, config: GanMeasureConfig, train: Tensor, generator: torch.Generator) -> PrecisionRecall:
    draws = mixture.sample(config.samples, generator).to(train.device)
    return precision_recall(draws, train, k=config.neighbours)


def _spread(values: list[Tensor]) -> dict[str, float]:
    stacked = torch.stack(values)
    return asdict(Estimate(float(stacked.mean()), float(stacked.std())))


def _of_neighbours(samples: Tensor, real: Tensor, config: GanMeasureConfig) -> Measures:
    found = precision_recall(samples, real, k=config.neighbours)
    return {name: float(getattr(found, name)) for name in _NEIGHBOURS}


def _of_features(samples: Tensor, real: Tensor, seed: int) -> dict[str, float]:
    """FID and KID of features that have been extracted already."""
    # Single pixels of as many channels as there are features, which nothing changes on the way.
    found = feature_distance(
        samples[..., None, None], real[..., None, None], nn.Flatten(), generator=_generator(seed, 2)
    )
    return {"fid": float(found.fid), "kid": float(found.kid)}


def _of_real(others: Tensor, real: Tensor, seed: int, config: GanMeasureConfig) -> Curves:
    """What other real images score in place of samples, if they are as many: the measures change with the number."""
    if len(others) < config.samples:
        return {}
    drawn = others[: config.samples]
    values = _of_neighbours(drawn, real, config) | _of_features(drawn, real, seed)
    # One draw: its spread is not known.
    return {name: {"mean": value, "sd": None} for name, value in values.items()}


def _of_distances(samples: Tensor, train: Tensor, heldout: Tensor) -> Measures:
    """Diversity and copies, in coordinates or pixels."""
    spread = diversity(samples, train)
    copied = memorisation(samples.flatten(1), train.flatten(1), heldout)
    return {
        "diversity_variance": float(spread.variance),
        "nearest_neighbour": float(spread.nearest_neighbour),
        "nearest_train": float(spread.nearest_train),
        "copies": max(0.0, copied.copies - copied.heldout_copies),
    }


def _of_path(
    sample: Sampler, latent_dim: int, device: torch.device, seed: int, config: GanMeasureConfig, curves: Curves
) -> Measures:
    """Smoothness along latent paths; adds their steps to the curves."""
    found = interpolation(
        sample,
        latent_dim,
        paths=config.paths,
        steps=config.path_steps,
        batch=config.batch,
        device=device,
        generator=_generator(seed, 3),
    )
    curves["interpolation"] = {"mean": found.steps.mean(0).tolist(), "largest": found.steps.amax(0).tolist()}
    return {"interpolation_jump": found.jump}


def _of_discriminator(
    discriminator: Discriminator | None,
    train: Tensor,
    heldout: Tensor,
    samples: Tensor,
    config: GanMeasureConfig,
    curves: Curves,
) -> Measures:
    """Signs of overfitting; adds histograms of the outputs to the curves."""
    finite = samples[samples.flatten(1).isfinite().all(1)]
    if discriminator is None or len(finite) < 2:
        return {}
    found = overfitting(discriminator, train, heldout, finite, batch=config.batch)
    outputs = {"train": found.train, "heldout": found.heldout, "fake": found.fake}
    everything = torch.cat([*outputs.values()])
    if bool(everything.isfinite().all()):
        low, high = float(everything.min()), float(everything.max())
        edges = torch.linspace(low, max(high, low + 1e-12), _BINS + 1, dtype=torch.float64)
        curves["logits"] = {"edges": edges.tolist()} | {
            name: torch.histogram(values.cpu(), edges).hist.tolist() for name, values in outputs.items()
        }
    names = (
        "sign_real",
        "sign_relativistic",
        "overfitting",
        "heldout_gap",
        "gradient_norm_real",
        "gradient_norm_fake",
        "largest_logit",
    )
    return {name: getattr(found, name) for name in names}


def _diverged(measures: Mapping[str, float | None], finite: bool, high_quality: float | None) -> float:
    """1 where outputs are not finite or huge, or where hardly a sample is of high quality."""
    largest = measures.get("largest_logit", 0.0)
    calm = largest is not None and largest <= _LARGEST_LOGIT  # not so for nan
    return float(not finite or not calm or (high_quality is not None and high_quality < _LEAST_QUALITY))


def _generator(seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each measure, on the CPU so that every device gets the same numbers."""
    return torch.Generator().manual_seed(seed * 1000 + stream)
