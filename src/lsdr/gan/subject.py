"""What is inspected: a generator with its data and its discriminator, from a run's folder, or images that it made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.data.load import load_images
from lsdr.data.split import split
from lsdr.data.subset import Subset, to_pixels
from lsdr.gan.mixtures import Mixture
from lsdr.gan.stacked import StackedDataset


@runtime_checkable
class Examples(Protocol):
    """Examples in batches: `__getitems__` gives "image", bytes or numbers, and "index", by which they are named."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Any) -> dict[str, Tensor]: ...


class InMemory:
    """Examples that are held in one tensor, shape (n, ...)."""

    def __init__(self, examples: Tensor) -> None:
        self.examples = examples

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __getitems__(self, indices: Any) -> dict[str, Tensor]:
        """A batch."""
        index = torch.tensor([int(each) for each in indices], dtype=torch.int64)
        return {"image": self.examples[index.to(self.examples.device)], "index": index}


@dataclass(frozen=True)
class Subject:
    """A generator, or its samples, and what they are compared with."""

    source: str
    model: str
    """What the network is, in words."""
    data: str
    train: Examples
    heldout: Examples
    """Real examples that were kept out of training, as far as that is known."""
    name: Callable[[int], str]
    """What a person calls a training example."""
    generate: Callable[[Tensor], Tensor] | None = None
    """Samples from standard normal latents, (n, latent_dim) to (n, ...); None where only samples are at hand."""
    latent_dim: int = 0
    samples: Examples | None = None
    discriminate: Callable[[Tensor], Tensor] | None = None
    """Output of the discriminator, without noise; of packs one each, and examples that fill none are left out."""
    packing: int = 1
    mixture: Mixture | None = None
    """The data's distribution, where it is known."""
    classify: Callable[[Tensor], Tensor] | None = None
    """Class of each image, or -1."""
    probabilities: Tensor | None = None
    """How often each class comes in the data."""
    features: Callable[[Tensor], Tensor] | None = None
    """What images are compared in, where that is at hand."""
    weights: Path | None = None
    """Where the networks' weights are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def points(self) -> bool:
        """Whether examples are points rather than images."""
        return take(self.train, 1).ndim == 2

    @property
    def thing(self) -> str:
        """What an example is called."""
        return "point" if self.points else "image"

    def draw(self, count: int, seed: int, batch: int = 250) -> Float[Tensor, "n ..."]:
        """Samples: as many as are asked for, of a folder as many as it has."""
        if self.generate is None:
            assert self.samples is not None
            return take(self.samples, count).to(self.device)
        latents = torch.randn((count, self.latent_dim), generator=torch.Generator().manual_seed(seed))
        return torch.cat([self.generate(part.to(self.device)) for part in latents.split(batch)])


def take(examples: Examples, count: int) -> Float[Tensor, "n ..."]:
    """Some examples, the same every time, drawn and not the first: pixels in [-1, 1], points as they are."""
    drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))[:count]
    return to_pixels(examples.__getitems__(drawn.sort().values.tolist())["image"])


def open_subject(source: Path, data: str | None, device: torch.device) -> Subject:
    """Read a run of `lsdr train gan`, or a folder of images that a generator made.

    Args:
        source: The folder.
        data: For a folder of images, the real ones, as `load_images` takes them.
        device: Where to compute.

    Raises:
        ValueError: If the folder is neither, its run has no weights yet, or images and data do not fit each other.
    """
    if not source.exists():
        raise ValueError(f"no folder {source}; give a run of `lsdr train gan`, or a folder of generated images")
    if (source / "experiment.json").is_file():
        runs = sorted(str(each.relative_to(source)) for each in source.glob("*/seed=*") if each.is_dir())
        named = f", such as {source / runs[0]}" if runs else ""
        raise ValueError(f"{source} is a comparison of several runs; name one of them{named}")
    if (source / "generator.json").is_file():
        if data is not None:
            raise ValueError(f"{source} is a run, which knows its own data; leave out --data")
        return _of_run(source, device)
    if data is None:
        raise ValueError(
            f"{source} is no run of `lsdr train gan` (it has no generator.json); for a folder of generated images name "
            "the real ones with --data"
        )
    return _of_images(source, data, device)


def _of_images(source: Path, data: str, device: torch.device) -> Subject:
    real = load_images(data)
    channels, height, width = real.shape
    samples = load_images(source, size=height if height == width else None, channels=channels)
    if samples.shape != real.shape:
        raise ValueError(
            f"generated images are {samples.shape} and real ones {real.shape} (channels, height, width); scale one of "
            "them"
        )
    train, heldout = (Subset(real, part.tolist()) for part in split(real, 0.2, seed=0))
    every = Subset(samples, range(len(samples)))
    words = f"{len(samples)} images"
    return Subject(str(source), words, data, train, heldout, real.name, samples=every, device=device)


def _of_run(source: Path, device: torch.device) -> Subject:
    # Imported here: a stranger's generator needs no run and none of what builds one.
    from lsdr.gan.load_run import load_run
    from lsdr.gan.measures.digit_classifier import shared_digit_classifier

    run = load_run(source, device)
    gan, data = run.task.gan, run.data
    train: Any = data.train  # a Dataset says nothing of `__getitems__` and length
    heldout: Any = data.heldout
    classify = probabilities = None
    if isinstance(data.train, StackedDataset) and isinstance(data.heldout, StackedDataset):
        classify = shared_digit_classifier(source, data.train, data.heldout, device).classify
        probabilities = data.train.probabilities
    return Subject(
        source=str(source),
        model=f"{run.config.model} generator",
        data=run.config.data,
        train=train,
        heldout=heldout,
        name=data.name,
        generate=gan.generate,
        latent_dim=gan.latent_dim,
        discriminate=gan.logits,
        packing=gan.packing,
        mixture=data.mixture,
        classify=classify,
        probabilities=probabilities,
        weights=source,
        device=device,
    )
