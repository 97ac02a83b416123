"""What is seen of samples one by one: how real, whose copies, along which paths, and what the discriminator says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsdr.data.subset import to_pixels
from lsdr.gan.measures.interpolation import latent_paths
from lsdr.gan.measures.memorisation import memorisation
from lsdr.gan.measures.overfitting import overfitting
from lsdr.gan.subject import Examples, Subject
from lsdr.measures.precision_recall import precision_recall

_CHUNK = 1024
_CANDIDATES = 4
_NEAR = 0.5  # of a distance that all but one in twenty real examples kept aside exceed
_QUANTILE = 0.05
_TINY = 1e-4  # of the usual distance: rounding
_STRIP = 9  # pictures along a path


@dataclass(frozen=True)
class Copies:
    """Whether samples are training examples over again, and which those are."""

    about: dict[str, Any]
    first: list[int]
    """The samples nearest to a training example for what is usual among these."""
    position: list[int]
    """The place in the training data of the one nearest to each."""
    distance: list[float]


def copies(samples: Float[Tensor, "n ..."], heldout: Float[Tensor, "m ..."], train: Examples, show: int) -> Copies:
    """Search all of the training data for the examples nearest to samples, and to real ones kept aside.

    A sample is a copy as `memorisation` defines it (its nearest training example stands out), or where it lies within
    half of the distance that 19 in 20 held-out examples exceed: in data with near duplicates no single one stands out.

    Cost: one pass over the training data, and (n + m) times its size operations.

    Args:
        samples: What to look for, finite.
        heldout: Real examples that were not trained on.
        train: Where to look.
        show: How many samples to name.
    """
    near = _candidates(torch.cat([samples, heldout]).flatten(1), train)
    places = near.unique()
    real = to_pixels(train.__getitems__(places.tolist())["image"]).to(samples)
    found = memorisation(samples.flatten(1), real.flatten(1), heldout.flatten(1))
    unseen = memorisation(heldout.flatten(1), real.flatten(1), heldout.flatten(1)).distance
    usual = float(unseen.median())
    limit = max(_NEAR * float(unseen.quantile(_QUANTILE)), _TINY * usual)
    close, real_close = (float((each <= limit).double().mean()) for each in (found.distance, unseen))
    pairs = (found.copies, found.heldout_copies), (close, real_close)
    share, real_share = max(pairs, key=lambda pair: pair[0] - pair[1])
    about = {
        "copies": share,
        "heldout_copies": real_share,
        "closer_than_heldout": found.closer_than_heldout,
        "distance": float(found.distance.median()),
        "heldout_distance": usual,
        "samples": len(samples),
        "heldout": len(heldout),
    }
    first = found.distance.argsort(stable=True)[:show]
    return Copies(
        about,
        first.tolist(),
        places[found.index[first].cpu()].tolist(),
        [float(found.distance[each]) for each in first],
    )


def _candidates(wanted: Float[Tensor, "n d"], train: Examples) -> Int[Tensor, "n k"]:
    """Places of the few training examples nearest to each, by a fast formula: rounding is settled among them."""
    best = wanted.new_empty((len(wanted), 0))
    place = torch.empty((len(wanted), 0), dtype=torch.int64)
    for start in range(0, len(train), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(train)))
        real = to_pixels(train.__getitems__(rows)["image"]).to(wanted).flatten(1)
        distance = torch.cat([best, torch.cdist(wanted, real)], 1)
        best, order = distance.topk(min(_CANDIDATES, distance.shape[1]), largest=False)
        here = torch.arange(start, start + len(real)).expand(len(wanted), -1)
        place = torch.cat([place, here], 1).gather(1, order.cpu())
    return place


def fidelity(
    samples: Float[Tensor, "n d"], train: Float[Tensor, "m d"], heldout: Float[Tensor, "h d"], k: int = 5
) -> dict[str, Any]:
    """Precision, recall, density and coverage of samples, and of as many real examples kept aside.

    Args:
        samples: Features of samples.
        train: Features of training examples.
        heldout: Features of real examples kept aside.
        k: See `precision_recall`.
    """
    count = min(len(samples), len(heldout))
    names = ("precision", "recall", "density", "coverage")
    found, real = (precision_recall(part[:count], train, k=k) for part in (samples, heldout))
    values = {name: float(getattr(found, name)) for name in names}
    return {**values, "reference": {name: float(getattr(real, name)) for name in names}, "compared": count, "k": k}


def judged(
    discriminate: Callable[[Tensor], Tensor], train: Tensor, heldout: Tensor, samples: Tensor, batch: int
) -> Any:
    """Whether the discriminator knows its training examples by heart, as `findings.of_overfitting` takes it.

    Args:
        discriminate: The discriminator; of packs one output each.
        train: Training examples.
        heldout: Real examples kept aside.
        samples: Samples.
        batch: Examples in one call; a multiple of a pack where there are any.
    """
    found = overfitting(discriminate, train, heldout, samples, batch=batch)
    return {
        "train": float(found.train.mean()),
        "heldout": float(found.heldout.mean()),
        "samples": float(found.fake.mean()),
        "gap": found.heldout_gap,
        "error": found.heldout_gap_error,
        "ratio": 0.0 if found.overfitting is None else found.overfitting,
        "gradient_norm_real": found.gradient_norm_real,
        "gradient_norm_fake": found.gradient_norm_fake,
    }


def paths(subject: Subject, count: int, steps: int, seed: int) -> Float[Tensor, "count points ..."]:
    """Samples along paths between latents, as `latent_paths` lays them.

    Args:
        subject: Whose generator.
        count: Paths.
        steps: Steps of each.
        seed: Decides their ends.
    """
    assert subject.generate is not None
    along = latent_paths(subject.latent_dim, count, steps, torch.Generator().manual_seed(seed))
    made: Tensor = torch.cat([subject.generate(path.to(subject.device)) for path in along])
    shape = (count, steps + 1, *made.shape[1:])
    return made.reshape(shape)


def smoothness(along: Float[Tensor, "paths points ..."]) -> dict[str, Any]:
    """Share of a path's length that its longest step takes, and the paths' length; medians over paths."""
    lengths = along.flatten(2).double().diff(dim=1).norm(dim=-1)
    total = lengths.sum(1)
    share = torch.where(total > 0, lengths.max(1).values / total.clamp_min(1e-300), 0.0)
    return {"largest": float(share.median()), "steps": lengths.shape[1], "paths": len(along)}


def strip(along: Float[Tensor, "paths points ..."]) -> Float[Tensor, "n ..."]:
    """Some examples of each path, evenly, one path after another: rows of nine."""
    kept = torch.linspace(0, along.shape[1] - 1, _STRIP).round().long()
    return along[:, kept].flatten(0, 1)
