"""Which examples a step sees: a pure function of (seed, step), so that a resumed run needs no saved state."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

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


class GroupedOrder:
    """Batches of one group each, for examples that cannot be stacked across groups (pictures of several shapes).

    An epoch gives each group a fresh permutation, cuts it into batches and shuffles the batches of all groups. A
    group's last batch, if short, is filled up from the start of the group's own permutation, round and round where the
    group is smaller than a batch. So an epoch shows every example at least once, and takes the sum over groups of
    ceil(size / batch_size) steps. The order is a function of (seed, step).

    Args:
        groups: The examples of each group.
        batch_size: Examples a step.
        seed: The run's seed.

    Raises:
        ValueError: If there is no group, a group is empty, or an example is in two.

    Example:
        >>> order = GroupedOrder([[0, 1, 2], [3, 4]], batch_size=2, seed=0)
        >>> order.epoch
        3
        >>> sorted(set(order.batch(0) + order.batch(1) + order.batch(2)))
        [0, 1, 2, 3, 4]
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch_size: int, seed: int) -> None:
        self.groups, self.batch_size, self.seed = [list(group) for group in groups], batch_size, seed
        if not self.groups or not all(self.groups):
            raise ValueError(
                f"expected groups of one example or more, got sizes {[len(group) for group in self.groups]}; leave "
                "empty groups out"
            )
        if len({index for group in self.groups for index in group}) != sum(map(len, self.groups)):
            raise ValueError("expected each example in one group, but one is there twice; make the groups disjoint")
        self.epoch = sum(-(-len(group) // batch_size) for group in self.groups)
        """Steps of an epoch."""
        self._batches: tuple[int, list[list[int]]] = (-1, [])

    def batch(self, step: int) -> list[int]:
        """Indices of the whole batch of `step`, over all ranks and micro-batches: all of one group."""
        epoch, position = divmod(step, self.epoch)
        if self._batches[0] != epoch:
            self._batches = epoch, self._shuffled(epoch)
        return list(self._batches[1][position])

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "groups", epoch))
        batches = list[list[int]]()
        for group in self.groups:
            order = [group[position] for position in torch.randperm(len(group), generator=generator).tolist()]
            batches += [
                [order[(start + k) % len(order)] for k in range(self.batch_size)]
                for start in range(0, len(order), self.batch_size)
            ]
        return [batches[position] for position in torch.randperm(len(batches), generator=generator).tolist()]


@runtime_checkable
class Order(Protocol):
    """Which examples each step sees."""

    def batch(self, step: int) -> list[int]:
        """Indices of the whole batch of `step`, over all ranks and micro-batches."""
        ...


def order_of(dataset: Any, batch_size: int, seed: int) -> Order:
    """The order in which a dataset is seen: its own, by its `groups`, or one permutation an epoch.

    Args:
        dataset: Has a length, and perhaps a method `order(batch_size, seed)` that gives an `Order`, or `groups`, a
            sequence of index sequences that together hold each example once.
        batch_size: Examples a step.
        seed: The run's seed.

    Raises:
        ValueError: If the dataset is empty, or its groups are not all of its examples.
    """
    if len(dataset) == 0:
        raise ValueError("expected examples to train on, got an empty dataset; check where they are read from")
    own = getattr(dataset, "order", None)
    if own is not None:
        order: Order = own(batch_size, seed)
        return order
    groups = getattr(dataset, "groups", None)
    if groups is None:
        return EpochOrder(len(dataset), batch_size, seed)
    grouped = GroupedOrder(groups, batch_size, seed)
    found = sorted(index for group in grouped.groups for index in group)
    if found != list(range(len(dataset))):
        raise ValueError(
            f"expected groups that hold all examples, 0 to {len(dataset) - 1}, got {len(found)} from {found[0]} to "
            f"{found[-1]}; let each example be in one group"
        )
    return grouped


class StepSampler:
    """Batches for a DataLoader: this rank's examples of each step from `start` on."""

    def __init__(self, order: Order, start: int, rank: int, world: int) -> None:
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
