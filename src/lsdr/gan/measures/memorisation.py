"""Does the generator repeat its training examples?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsdr.measures.nearest import nearest

_COPY = 1 / 3
"""A copy is so many times nearer to one training example than to any other (Yoon et al. 2023)."""


@dataclass(frozen=True, eq=False)
class Memorisation:
    """How near samples are to training examples, beside held-out examples, which were not copied from anything."""

    copies: float
    """Share of samples that are copies of a training example."""
    heldout_copies: float
    """Share of held-out examples that look like copies by chance: in few dimensions not 0 (1/9 in the plane)."""
    closer_than_heldout: float
    """Probability that a sample is nearer to its nearest training example than a held-out example is to its own, ties
    counted half: 1/2 for a perfect sampler, 1 for a generator that copies, below 1/2 for samples far from the data."""
    distance: Float[Tensor, " n"]
    """Distance from each sample to its nearest training example, root mean square over coordinates."""
    index: Int[Tensor, " n"]
    """Which training example that is."""


def memorisation(
    samples: Float[Tensor, "n d"], train: Float[Tensor, "m _"], heldout: Float[Tensor, "k _"], *, chunk: int = 1024
) -> Memorisation:
    r"""Distances from samples to the training examples, against those of held-out examples.

    A sample x is a copy if it equals a training example or its nearest two are as unequally far as

    .. math::
        \|x - y_{(1)}\| < \tfrac13 \|x - y_{(2)}\|.

    In d dimensions a point of a smooth density looks like a copy with probability :math:`3^{-d}` whatever the sampler,
    which the held-out examples show; in pixels or features it is next to nothing. A near duplicate in the training set
    hides copies of its pair from this test, but not from `closer_than_heldout`, which a generator of blurred samples
    passes in turn. Invariant to a common scale, shift or rotation, but for `distance`. Cost: (n + k) m d operations in
    blocks of `chunk` by `chunk`.

    Source: the ratio of one third, Yoon et al. 2023 (Diffusion probabilistic models generalize when they fail to
    memorize); the comparison with held-out examples, Meehan et al. 2020, arXiv:2004.05675.

    Args:
        samples: Generated points, or features or pixels of images, finite; at least one.
        train: The training examples, at least two.
        heldout: Real examples that are not among them, at least one.
        chunk: Points compared at once with as many others.

    Returns:
        The measures.

    Raises:
        ValueError: If there are too few of a kind.

    Example:
        >>> real = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        >>> found = memorisation(real[:50] + 1e-3, train=real[:200], heldout=real[200:])
        >>> found.copies, found.heldout_copies, found.closer_than_heldout, found.index[:3].tolist()
        (1.0, 0.0, 1.0, [0, 1, 2])
    """
    if len(samples) < 1 or len(heldout) < 1 or len(train) < 2:
        raise ValueError(
            f"need at least 1 sample, 1 held-out and 2 training examples, got {len(samples)}, {len(heldout)} and "
            f"{len(train)}"
        )
    of_samples, index = nearest(samples, train, 2, chunk=chunk)
    of_heldout, _ = nearest(heldout, train, 2, chunk=chunk)
    mine, theirs = of_samples[:, 0].contiguous(), of_heldout[:, 0].sort().values
    farther = len(theirs) - torch.searchsorted(theirs, mine, right=True)
    level = torch.searchsorted(theirs, mine, right=True) - torch.searchsorted(theirs, mine)
    # The fast formula for many distances loses the digits of small ones, and near copies are what matters here.
    distance = (samples.double() - train[index[:, 0]].double()).square().mean(1).sqrt()
    return Memorisation(
        copies=_copies(of_samples),
        heldout_copies=_copies(of_heldout),
        closer_than_heldout=float((farther + level / 2).double().mean() / len(theirs)),
        distance=distance,
        index=index[:, 0],
    )


def _copies(distances: Float[Tensor, "n 2"]) -> float:
    """Share of points whose nearest training example stands out, or is equal."""
    first, second = distances.unbind(1)
    return float(((first == 0) | (first < _COPY * second)).double().mean())
