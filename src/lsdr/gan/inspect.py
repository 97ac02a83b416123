"""Look at what a generator makes, and answer the question: is this mode collapse?"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lsdr.data.grid import image_grid
from lsdr.data.subset import to_pixels
from lsdr.gan import findings as told
from lsdr.gan.findings import KINDS as KINDS
from lsdr.gan.findings import Finding
from lsdr.gan.inspect_modes import distinct, of_classes, of_clusters, of_mixture
from lsdr.gan.inspect_samples import copies, fidelity, judged, paths, smoothness, strip
from lsdr.gan.mixtures import Mixture
from lsdr.gan.subject import InMemory, Subject, open_subject, take
from lsdr.inspection.inspect import inspect
from lsdr.measures.feature_extractor import LEAST_IMAGES, TrainedExtractor, train_feature_extractor

Progress = Callable[[str, float, float, str], None]
_PER_CLASS = 10  # samples a class, to tell a missing one from one that chance left out
_COMPARED = 2500  # examples of each part at least, where there are so many
_SEARCHED = 256  # images whose nearest training example is looked for
_SHOWN = 64  # images in a grid
_PAIRS = 9
_DRAWN = 1000  # points in a plot
_PATHS, _STEPS = 6, 32


@dataclass(frozen=True)
class GanInspection:
    """What was seen of a generator."""

    found: dict[str, Any]
    """Plain numbers and words for JSON: see `inspect_generator`."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """Of image generators: "samples", "data", "nearest" (samples above the training images nearest to them) and
    "interpolation" (a path a row)."""

    @property
    def answer(self) -> str:
        """Whether this is mode collapse, in a sentence."""
        return str(self.found["answer"])


def inspect_gan(
    source: Path | str,
    *,
    data: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> GanInspection:
    """Look at a trained GAN, or at images that any generator made.

    Of a run the averaged generator is inspected, with the noise of training off, and beside it both networks' layers.
    See `inspect_generator` for what is measured.

    Args:
        source: A run of `lsdr train gan` or `lsdr compare gan`, or a folder of generated images (see `load_images`).
        data: With a folder of images: the real ones.
        samples: How many samples to draw; by default 2500, and at least 10 a class.
        seed: Decides them.
        device: Where to compute; a GPU if there is one.
        progress: Called with what is being done, how much of how much of it is done, and the same in words.

    Returns:
        What was found.

    Raises:
        ValueError: If the folder is neither, or holds no weights, or the images do not fit the data.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    say = progress or (lambda doing, done, total, words: None)
    say("loading the generator", 0, 1, "")
    with torch.random.fork_rng():
        subject = open_subject(Path(source), data, place)
    return _inspect(subject, samples, seed, say)


def inspect_generator(
    generate: Callable[[Tensor], Tensor],
    latent_dim: int,
    train: Tensor,
    heldout: Tensor,
    *,
    discriminate: Callable[[Tensor], Tensor] | None = None,
    mixture: Mixture | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> GanInspection:
    """The same of any generator.

    Looked for are values that are not finite, a generator that returns one example or few, modes (or classes, or, where
    neither is known, clusters of the data's features) that samples leave out or prefer, precision and coverage below
    those of real examples, copies of training examples, latent paths that leap, and a discriminator that knows its
    training examples by heart; each beside what a perfect sampler, or real examples kept aside, would show.

    Torch's global random state stays as it is. Cost: the samples, one search through the training data, and for images
    without `features` a small classifier trained on up to 2000 of them (see `train_feature_extractor`).

    Args:
        generate: Samples of shape (n, ...) from standard normal latents (n, latent_dim); in evaluation mode.
        latent_dim: Numbers a sample is made from.
        train: What it was trained on: images in [-1, 1], or points.
        heldout: Real examples that it was not trained on.
        discriminate: The discriminator's outputs (n,), higher for more real.
        mixture: The data's distribution, if known.
        features: Maps images to features (n, d) in which they are compared.
        samples: How many samples to draw; 2500 by default.
        seed: Decides them.

    Returns:
        What was found: "findings", each with "severity", "kind" (one of `KINDS`) and "message", and "answer";
        "modes", "fidelity", "memorisation", "interpolation", "overfitting" and "layers" where they were measured.

    Example:
        >>> noise = torch.Generator().manual_seed(0)
        >>> data = torch.randn(600, 2, generator=noise)
        >>> inspect_generator(lambda z: torch.zeros_like(z), 2, data[:400], data[400:], samples=200).answer
        'Yes, this is mode collapse: the generator returns one point: all 200 samples are alike.'
    """
    subject = Subject(
        "generator",
        "generator",
        "data",
        InMemory(train),
        InMemory(heldout),
        lambda index: f"example {index}",
        generate=generate,
        latent_dim=latent_dim,
        discriminate=discriminate,
        mixture=mixture,
        features=features,
        device=train.device,
    )
    return _inspect(subject, samples, seed, lambda doing, done, total, words: None)


@torch.no_grad()
def _inspect(subject: Subject, samples: int | None, seed: int, say: Progress) -> GanInspection:
    wanted = samples or max(2500, _PER_CLASS * (0 if subject.probabilities is None else len(subject.probabilities)))
    if wanted < 20:
        raise ValueError(f"judging a generator takes 20 samples or more, got {wanted}")
    say("sampling", 0, wanted, f"{wanted} samples")
    every = subject.draw(wanted, seed)
    made = every[every.flatten(1).isfinite().all(1)]
    layers, findings = _layers(subject, say)
    broken = [str(row["name"]) for row in layers if row.get("sigma_max") is None]
    findings += told.of_finiteness(len(made), len(every), broken)
    compared = max(wanted, _COMPARED)
    train, heldout = (take(part, compared).to(subject.device) for part in (subject.train, subject.heldout))
    found: dict[str, Any] = {
        "source": subject.source,
        "model": subject.model,
        "data": subject.data,
        "shape": list(train.shape[1:]),
        "samples": len(every),
        "finite": len(made),
        "train": len(subject.train),
        "heldout": len(subject.heldout),
    }
    pictures: dict[str, Image.Image] = {}
    if len(made) > 1:
        seen = _Seen(subject, made, train, heldout, seed, say)
        more, pictures = seen.measure(found)
        findings += more
    found["findings"] = told.ranked(findings)
    found["answer"] = told.answer(found)
    found["layers"] = layers
    plain: dict[str, Any] = _plain(found)
    return GanInspection(plain, pictures)


@dataclass
class _Seen:
    """Samples that are finite, and what they are compared with."""

    subject: Subject
    made: Tensor
    train: Tensor
    heldout: Tensor
    seed: int
    say: Progress

    def measure(self, found: dict[str, Any]) -> tuple[list[Finding], dict[str, Image.Image]]:
        """Fill in what is measured; returns what it says, with pictures of images."""
        thing = self.subject.thing
        number, looked_at = distinct(self.made, self.train)
        findings = told.of_repeats(number, looked_at, len(self.subject.train), thing)
        self.say("counting modes", 0, 1, "")
        spread = self._modes(found)
        if number > 1:  # one example over and over covers one mode, and nothing else
            findings += spread
        self.say("looking for copies", 0, 1, "in the training data")
        repeated, pairs = self._copies(found)
        self.say("walking between latents", 0, 1, "")
        along = self._paths(found)
        findings += [*repeated, *self._walked(found), *self._judged(found)]
        if self.subject.points:
            found["points"] = self._points(along)
            return findings, {}
        pictures = {"samples": image_grid(self.made[:_SHOWN]), "data": image_grid(self.train[:_SHOWN])}
        pictures["nearest"] = image_grid(pairs, columns=_PAIRS)
        if along is not None:
            pictures["interpolation"] = image_grid(strip(along), columns=9)
        return findings, pictures

    def _modes(self, found: dict[str, Any]) -> list[Finding]:
        """Modes, classes or clusters, and how real samples are where no modes are known."""
        subject = self.subject
        if subject.mixture is not None:
            found["modes"] = of_mixture(self.made.cpu(), subject.mixture)
            return told.of_modes(found["modes"])
        features = self._features()
        made, train, heldout = (features(part) for part in (self.made, self.train, self.heldout))
        if subject.classify is not None and subject.probabilities is not None:
            labels = torch.cat([subject.classify(part) for part in self.made.split(500)])
            found["modes"] = of_classes(labels.cpu(), subject.probabilities)
        else:
            found["modes"] = of_clusters(made, train, heldout, self.seed)
        neighbours = min(5, len(heldout) - 1, len(made) - 1, len(train) - 1)
        if neighbours < 1:
            return told.of_modes(found["modes"])
        found["fidelity"] = fidelity(made, train, heldout, neighbours)
        return told.of_modes(found["modes"]) + told.of_fidelity(found["fidelity"])

    def _features(self) -> Callable[[Tensor], Tensor]:
        """What examples are compared in: the run's own features, given ones, or those of a classifier made here."""
        subject = self.subject
        compute = subject.features
        if subject.points:
            return lambda examples: examples
        if compute is None:
            folders = [] if subject.weights is None else [subject.weights, subject.weights.resolve().parent.parent]
            kept = next((folder for folder in folders if (folder / "extractor.json").is_file()), None)
            if kept is not None:
                compute = TrainedExtractor.load(kept).extractor.to(subject.device)
            elif len(self.train) >= LEAST_IMAGES:
                self.say("learning features", 0, 1, "of the data")
                compute = train_feature_extractor(self.train[:2000]).extractor
            else:
                return lambda examples: examples.flatten(1)
        network = compute
        return lambda examples: torch.cat([network(part) for part in examples.split(250)])

    def _copies(self, found: dict[str, Any]) -> tuple[list[Finding], Tensor]:
        """Copies of training examples, and the samples nearest to one, each above it."""
        subject, most = self.subject, None if self.subject.points else _SEARCHED
        seen = copies(self.made[:most], self.heldout[:most], subject.train, _PAIRS)
        batch, about = subject.train.__getitems__(seen.position), seen.about
        about["nearest"] = [
            {"sample": sample, "train": subject.name(int(index)), "distance": distance}
            for sample, index, distance in zip(seen.first, batch["index"], seen.distance, strict=True)
        ]
        found["memorisation"] = about
        said = told.of_memorisation(about["copies"], about["heldout_copies"], about["samples"], subject.thing)
        return said, torch.cat([self.made[seen.first], to_pixels(batch["image"]).to(self.made)])

    def _paths(self, found: dict[str, Any]) -> Tensor | None:
        if self.subject.generate is None:
            return None
        along = paths(self.subject, _PATHS, _STEPS, self.seed + 1)
        along = along[along.flatten(1).isfinite().all(1)]
        if not len(along):
            return None
        found["interpolation"] = smoothness(along)
        return along

    def _walked(self, found: dict[str, Any]) -> list[Finding]:
        """Leaps, where the data are not known to lie in modes apart: between those every path leaps."""
        if self.subject.mixture is not None or "interpolation" not in found:
            return []
        return told.of_interpolation(found["interpolation"]["largest"], found["interpolation"]["steps"])

    def _judged(self, found: dict[str, Any]) -> list[Finding]:
        subject = self.subject
        if subject.discriminate is None:
            return []
        packs, parts = subject.packing, (self.train, self.heldout, self.made)
        if min(map(len, parts)) < 2 * packs:
            return [told.not_measured("the discriminator's overfitting", "there are too few examples for two packs")]
        about = judged(subject.discriminate, *parts, batch=250 * packs)
        if not math.isfinite(about["train"] + about["heldout"] + about["samples"]):
            return [told.finding("error", "not_finite", "not finite: the discriminator returns NaN or infinity")]
        found["overfitting"] = about
        return told.of_overfitting(about)

    def _points(self, along: Tensor | None) -> dict[str, Any]:
        rows = {"samples": self.made[:_DRAWN], "data": self.train[:_DRAWN]}
        points: dict[str, Any] = {name: part[:, :2].tolist() for name, part in rows.items()}
        points["paths"] = [] if along is None else along[..., :2].tolist()
        mixture = self.subject.mixture
        points["mixture"] = {} if mixture is None else {"means": mixture.means.tolist(), "std": mixture.std}
        return points


def _layers(subject: Subject, say: Progress) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Every layer of both networks, as `lsdr inspect` sees them."""
    if subject.weights is None:
        return [], []
    say("looking at the layers", 0, 1, "")
    try:
        seen = inspect(subject.weights).to_dict()
    except ValueError as error:
        return [], [told.not_measured("the layers", error)]
    # A run's file holds both networks, as they were trained and averaged, as parts of one model.
    rows = [{**row, **{key: row[key].removeprefix("model.") for key in ("name", "block")}} for row in seen["layers"]]
    rows.sort(key=lambda row: not row["name"].startswith("generator."))  # stable: within a network by depth
    found = [{**each, "text": each["text"].removeprefix("model.")} for each in seen["findings"]]
    return rows, told.of_layers(found)


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for become None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
