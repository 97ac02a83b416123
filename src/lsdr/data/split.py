"""Held-out images, chosen by a seed and free of overlap with the training images."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from lsdr.data.images import ImageDataset


def split(dataset: ImageDataset, holdout: float | int, seed: int) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "m"]]:
    """Split the indices of a data set into training and held-out ones.

    The split is random, by the seed alone. Where images are crops of larger pictures (``patches``), the held-out ones
    come from a vertical strip of each picture, placed by the seed, and crops that share a pixel with the strip are in
    neither part. The data set is told to keep the parts apart when it replaces a bad image.

    Args:
        dataset: The data.
        holdout: How many to hold out: a fraction in [0, 1), or a number of images.
        seed: What decides which.

    Returns:
        Training and held-out indices, each ascending.

    Raises:
        ValueError: If `holdout` is negative or leaves no image to train on.

    Example:
        >>> from lsdr.data.load import load_images
        >>> train, heldout = split(load_images("digits"), 0.1, seed=0)
        >>> len(train), len(heldout)
        (1617, 180)
    """
    count = len(dataset)
    held = held_out(count, holdout)
    generator = torch.Generator().manual_seed(seed)
    strips = dataset.strips()
    if strips is None or held == 0:
        order = torch.randperm(count, generator=generator)
        train, heldout = order[held:].sort().values, order[:held].sort().values
    else:
        train, heldout = _strip(*strips, held, generator)
    dataset.keep_apart(train, heldout)
    return train, heldout


def held_out(count: int, holdout: float | int) -> int:
    """How many of `count` images a `holdout` holds out; a positive fraction holds out at least one.

    Raises:
        ValueError: If `holdout` is negative or leaves no image to train on.

    Example:
        >>> held_out(50, 0.1), held_out(50, 7), held_out(3, 0.01)
        (5, 7, 1)
    """
    if isinstance(holdout, float) and not 0 <= holdout < 1:
        raise ValueError(f"holdout={holdout} is no fraction in [0, 1); give a whole number to hold out so many images")
    held = max(int(holdout > 0), round(holdout * count)) if isinstance(holdout, float) else holdout
    if held < 0:
        raise ValueError(f"holdout={holdout} is negative")
    if held >= count:
        raise ValueError(f"holding out {held} of {count} image(s) leaves none to train on; choose a smaller holdout")
    return held


def check_fits(count: int, batch_size: int, holdout: float | int = 0) -> None:
    """Check, before anything is built, that data of this size can be trained on.

    Args:
        count: How many images there are.
        batch_size: How many a step takes.
        holdout: As in `split`.

    Raises:
        ValueError: If there are no images, too few for a held-out part, or fewer than a batch to train on.

    Example:
        >>> check_fits(count=10, batch_size=16)
        Traceback (most recent call last):
        ...
        ValueError: a batch of 16 is larger than the 10 image(s) to train on; choose batch_size=10 (--batch-size 10) or
        less, or give more images
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if count < 1:
        raise ValueError("there are no images to train on")
    remaining = count - held_out(count, holdout)
    if batch_size > remaining:
        raise ValueError(
            f"a batch of {batch_size} is larger than the {remaining} image(s) to train on; choose "
            f"batch_size={remaining} (--batch-size {remaining}) or less, or give more images"
        )


def _strip(
    columns: np.ndarray, width: int, held: int, generator: torch.Generator
) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "m"]]:
    """Hold out crops whose left edges lie in the narrowest strip, from a random edge on, that has enough of them."""
    edges, counts = np.unique(columns, return_counts=True)
    # Only starts from which enough crops follow.
    starts = np.flatnonzero(np.cumsum(counts[::-1])[::-1] >= held)
    first = int(starts[int(torch.randint(len(starts), (1,), generator=generator))])
    last = first + int(np.searchsorted(np.cumsum(counts[first:]), held))
    inside = np.flatnonzero((columns >= edges[first]) & (columns <= edges[last]))
    heldout = inside[np.arange(held) * len(inside) // held]
    train = np.flatnonzero((columns <= edges[first] - width) | (columns >= edges[last] + width))
    if len(train) == 0:
        raise ValueError(
            f"holding out {held} of {len(columns)} overlapping crops leaves none that share no pixel with them; choose "
            f"a smaller holdout"
        )
    return torch.from_numpy(train), torch.from_numpy(heldout)
