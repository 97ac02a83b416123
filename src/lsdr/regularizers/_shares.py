"""A call's part of a step whose examples come in micro-batches and on ranks, for penalties that are means."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Share:
    """The examples of one call among all of the step's, which are numbered rank after rank, chunk after chunk."""

    first: int
    """Number of this call's first example."""
    count: int
    """Examples of this call."""
    total: int
    """Examples of the step: all chunks of all ranks."""
    world: int
    """Ranks."""
    last: bool
    """Whether this is the rank's last chunk of the step."""

    def draw(
        self, sample: Callable[..., Tensor], generator: torch.Generator | None, device: torch.device
    ) -> Shaped[Tensor, "n ..."]:
        """Draw random numbers for this call's examples.

        With a generator they are drawn for all of the step's and then cut, so that one in the same state for every
        chunk and on every rank gives the same numbers however the step is cut.

        Args:
            sample: Draws for so many examples, `generator` and `device` being passed on.
            generator: None is torch's global one, from which only these examples' are drawn.
            device: Where the numbers are to be.
        """
        where: dict[str, Any] = {"generator": generator, "device": device if generator is None else generator.device}
        if generator is None:
            return sample(self.count, **where)
        return sample(self.total, **where)[self.first : self.first + self.count].to(device)

    def combine(self, mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        r"""Turn the mean over this call's examples into its part of the mean over the step's.

        The gradient is :math:`\tfrac{n R}{N} \nabla \mathrm{mean}`: averaged over R ranks, as DistributedDataParallel
        does, and summed over chunks, it is that of the whole. The value is the same on every rank, and the values of
        the chunks sum to the whole's. One sum of a number over ranks, if there are several.
        """
        part = mean * (self.count * self.world / self.total)
        if self.world == 1:
            return part
        value = mean.detach().double() * self.count
        distributed.all_reduce(value)
        return part + (value / self.total - part.detach().double()).to(part)


class Shares:
    """Keeps count of a step's examples; the bookkeeping of a `Term` whose penalty is a mean over examples."""

    def __init__(self) -> None:
        self._sizes: list[int] = []  # of the forwards observed
        self._again: list[int] = []  # of those since the last call, where there were such
        self._used = 0
        self._counter: Callable[[int], None] | None = None

    def receive(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Note that the model ran; for `capture` of the whole model. Traced by `torch.compile`, so it does little."""
        if self._counter is not None:
            self._counter(output.shape[0])

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Count the examples of the forwards within; see `Penalty.observe`."""
        self.forget()
        self._counter = torch.compiler.disable(self._sizes.append)
        try:
            yield
        finally:
            self._counter = torch.compiler.disable(self._again.append) if self._sizes else None

    def observed(self) -> int:
        """Count the calls that are to use what was observed and has not been used yet."""
        return (len(self._sizes) - self._used) // max(1, len(self._again))

    def forget(self) -> None:
        """Let go of what was observed."""
        self._sizes.clear()
        self._again.clear()
        self._used, self._counter = 0, None

    def take(self, count: int, device: torch.device) -> Share:
        """Take the next share.

        Args:
            count: Examples of this call.
            device: Where ranks exchange numbers.

        Raises:
            RuntimeError: If another number of examples was observed.
        """
        runs = max(1, len(self._again))  # self-conditioning runs the model twice for one loss
        sizes, used = self._sizes or runs * [count], self._used
        expected, came = sizes[used : used + runs], runs * [count]
        if expected != came or len(sizes) % runs:
            raise RuntimeError(
                f"{' + '.join(map(str, came))} examples came where {' + '.join(map(str, expected))} were observed (in "
                f"{len(sizes)} passes in all): run the same chunks in the same order, the model as often for each, and "
                "call the penalty once after each"
            )
        before, total, world = _over_ranks(sum(sizes) // runs, device)
        share = Share(before + sum(sizes[:used]) // runs, count, total, world, last=used + runs == len(sizes))
        self._used = used + runs
        self._again.clear()
        if share.last:
            self.forget()
        return share


def _over_ranks(count: int, device: torch.device) -> tuple[int, int, int]:
    """Examples of the ranks before this one, of all ranks, and the number of ranks."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return 0, count, 1
    world, rank = distributed.get_world_size(), distributed.get_rank()
    counts = torch.zeros(world, dtype=torch.int64, device=device)
    counts[rank] = count
    distributed.all_reduce(counts)
    numbers = counts.tolist()
    return sum(numbers[:rank]), sum(numbers), world
