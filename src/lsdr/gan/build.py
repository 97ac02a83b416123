"""From options to a task: data, players, noise, checked against each other before anything is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.data.load import load_images
from lsdr.data.split import check_fits, split
from lsdr.data.subset import Images, Subset, to_pixels
from lsdr.gan.adaptive_noise import AdaptiveNoise
from lsdr.gan.config import GanConfig
from lsdr.gan.denoising_diffusion import DenoisingSchedule
from lsdr.gan.losses import LOSSES
from lsdr.gan.mixtures import MIXTURES, Mixture, MixtureDataset
from lsdr.gan.models.build import build_players
from lsdr.gan.models.presets import default_model
from lsdr.gan.players import Gan
from lsdr.gan.stacked import load_stacked
from lsdr.gan.task import GanTask

_LEAST = 20  # examples that measures need


@dataclass(frozen=True)
class Data:
    """Examples to train on and examples kept aside."""

    train: Dataset[Any]
    heldout: Dataset[Any]
    shape: tuple[int, ...]
    """Of an example: (d,) for points, (C, H, W) for images."""
    name: Callable[[int], str]
    """What a person calls the training example that a batch reports by this index."""
    mixture: Mixture | None = None
    """The distribution of the points."""
    classes: int | None = None
    problems: Callable[[], list[dict[str, Any]]] = list
    """What was wrong with the source so far."""

    def describe(self, source: str) -> dict[str, Any]:
        """The "data" entry of experiment.json."""
        found: dict[str, Any] = {
            "source": source,
            "count": _length(self.train),
            "heldout": _length(self.heldout),
            "shape": list(self.shape),
            "classes": self.classes,
            "problems": self.problems(),
        }
        if self.mixture is not None:
            mixture = {"name": self.mixture.name, "means": self.mixture.means.tolist(), "std": self.mixture.std}
            found["mixture"] = mixture
        return found


@dataclass(frozen=True)
class Examples(Images):
    """Examples in memory for measuring: images in [-1, 1] or points as they are, and their labels or None."""

    index: Tensor
    """What their part of the data calls them."""


def load_data(config: GanConfig) -> Data:
    """Load and split the examples.

    The split, and what is drawn of mixtures and stacked digits, have fixed seeds: runs with different seeds learn from
    the same examples and are judged on the same held-out ones.

    Raises:
        ValueError: If there are too few examples, or they cannot be read.
    """
    if config.data in MIXTURES:
        _refuse(config, "size", "channels", "limit")
        mixture = MIXTURES[config.data]
        aside = max(_LEAST, round(config.holdout * config.examples))
        train, heldout = MixtureDataset(mixture, config.examples, seed=0), MixtureDataset(mixture, aside, seed=1)
        check_fits(len(train), config.training.batch_size)
        return Data(train, heldout, train.shape, train.name, mixture)
    if config.data.startswith("stacked"):
        _refuse(config, "channels", "limit")
        aside = max(_LEAST, round(config.holdout * config.examples))
        load = partial(load_stacked, config.data, size=config.size, holdout=config.holdout)
        pictures, unseen = load(config.examples, part="train"), load(aside, part="heldout")
        check_fits(len(pictures), config.training.batch_size)
        return Data(pictures, unseen, pictures.shape, pictures.name, classes=pictures.classes)
    images = load_images(
        config.data, size=config.size, channels=config.channels, on_bad=config.on_bad, limit=config.limit
    )
    parts = [Subset(images, indices.tolist()) for indices in split(images, config.holdout, seed=0)]
    if min(map(len, parts)) < 2 or len(parts[0]) < _LEAST:
        raise ValueError(
            f"{config.data} leaves {len(parts[0])} images to train on and {len(parts[1])} held out; measuring needs "
            f"{_LEAST} and 2, so give more images or another --holdout"
        )
    check_fits(len(images), config.training.batch_size, config.holdout)
    return Data(parts[0], parts[1], images.shape, images.name, classes=images.classes, problems=images.problem_summary)


def _refuse(config: GanConfig, *names: str) -> None:
    """Stop at options that would be ignored."""
    for name in names:
        if getattr(config, name) is not None:
            raise ValueError(
                f"{name}={getattr(config, name)} is for images, and {config.data} is drawn; leave it out, and choose "
                "how much is drawn with examples"
            )


def examples(dataset: Any, count: int, device: torch.device) -> Examples:
    """Some examples of a part, the same ones every time.

    They are drawn, not the first ones: a source may be sorted by class.
    """
    drawn = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    batch = dataset.__getitems__(drawn.sort().values.tolist())
    label = batch.get("label")
    pixels = to_pixels(batch["image"]).to(device)
    return Examples(pixels, None if label is None else label.to(device), batch["index"])


def build_task(config: GanConfig, data: Data, device: torch.device) -> GanTask:
    """Build both players and what surrounds them; initial weights are drawn from torch's global generator.

    Raises:
        ValueError: If model, options and data do not fit each other.
    """
    seen = examples(data.train, config.measure.train_examples, device).pixels
    unseen = examples(data.heldout, config.measure.heldout_examples, device).pixels
    if config.flip and len(data.shape) == 1:
        raise ValueError(f"flip mirrors images, and {config.data} are points; leave it out")
    return GanTask(
        model=build_gan(config, data.shape, seen),
        config=config,
        dataset=data.train,
        seen=seen,
        unseen=unseen,
        names=data.name,
        mixture=data.mixture,
    )


def build_gan(config: GanConfig, shape: tuple[int, ...], seen: Tensor) -> Gan:
    """Build both players for data that some examples stand for.

    Args:
        config: What is played.
        shape: Of an example.
        seen: Examples, for the data's mean and standard deviation.

    Raises:
        ValueError: If there is no such model, or it is not for such data or options.
    """
    # One standard deviation for all coordinates: distances between points keep their proportions.
    deviation = seen.flatten(1).var(0, correction=0).mean().sqrt().cpu()
    if not deviation > 0:
        raise ValueError(f"all {len(seen)} examples looked at are the same: there is no distribution to learn")
    points = len(shape) == 1
    generator, discriminator = build_players(
        default_model(shape) if config.model == "auto" else config.model,
        shape,
        latent=config.latent,
        normalization=config.normalization,
        discriminator_normalization=config.discriminator_normalization,
        packing=config.packing,
        level=config.discriminator_noise,
        denoising=config.denoising,
    )
    noise = None
    if config.adaptive:
        noise = AdaptiveNoise(
            1.0 if points else float(deviation),
            smallest=config.noise_smallest,
            largest=config.noise_largest,
            target=config.noise_target,
            signal="relativistic" if LOSSES[config.loss].relativistic else "sign",
            clean=config.noise_clean,
            images=config.noise_images,
            strength=config.noise_strength or 0.0,
        )
    return Gan(
        generator,
        discriminator,
        shape,
        noise=noise,
        noisy_discriminator=config.discriminator_noise,
        schedule=DenoisingSchedule(config.denoising_steps) if config.denoising else None,
        packing=config.packing,
        center=seen.mean(0).cpu() if points else None,
        spread=deviation if points else None,
    )


def _length(dataset: Any) -> int:
    return len(dataset)
