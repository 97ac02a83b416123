"""Which examples a step sees: a pure function of (seed, step), so that a resumed run needs no saved state."""

import hashlib
from collections.abc import Iterator

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A seed for one stream of randomness, independent between names (step, rank, purpose).

    Args:
        seed: The run's seed.
        names: What the stream is for.

    Returns:
        An integer in [0, 2^63).

    Example:
        >>> stream_seed(0, "noise", 1) != stream_seed(0, "noise", 2)
        True
    """
    digest = hashlib.blake2b("/".join(map(str, (seed, *names))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class EpochOrder:
    """The endless concatenation of one fresh permutation an epoch, cut into batches.

    Args:
        count: Number of examples.
        batch_size: Examples a step.
        seed: The run's seed.

    Example:
        >>> order = EpochOrder(count=4, batch_size=2, seed=0)
        >>> sorted(order.batch(0) + order.batch(1))
        [0, 1, 2, 3]
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._permutations: dict[int, torch.Tensor] = {}

    def batch(self, step: int) -> list[int]:
        """Indices of the whole batch of `step`, over all ranks and micro-batches."""
        start, indices = step * self.batch_size, list[int]()
        while len(indices) < self.batch_size:
            epoch, offset = divmod(start + len(indices), self.count)
            missing = self.batch_size - len(indices)
            indices += self._permutation(epoch)[offset : offset + missing].tolist()
        return indices

    def _permutation(self, epoch: int) -> torch.Tensor:
        if epoch not in self._permutations:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", epoch))
            # A batch can straddle two epochs; older ones are never asked for again.
            self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}
            self._permutations[epoch] = torch.randperm(self.count, generator=generator)
        return self._permutations[epoch]


class StepSampler:
    """Batches for a DataLoader: this rank's examples of each step from `start` on."""

    def __init__(self, order: EpochOrder, start: int, rank: int, world: int) -> None:
        self.order, self.start, self.rank, self.world = order, start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        """Yield index lists without end."""
        step = self.start
        while True:
            yield share(self.order.batch(step), self.rank, self.world)
            step += 1


def share(items: list[int], part: int, parts: int) -> list[int]:
    """The `part`-th of `parts` nearly equal, contiguous shares.

    Example:
        >>> [share([0, 1, 2, 3, 4], part, 2) for part in range(2)]
        [[0, 1, 2], [3, 4]]
    """
    small, larger = divmod(len(items), parts)
    start = part * small + min(part, larger)
    return items[start : start + small + (part < larger)]
