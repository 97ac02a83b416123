"""Sums over the first images of a training, the same however a step is cut into micro-batches and over ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor, distributed

from lsdr.regularizers._shares import Share

ENOUGH = 16
"""Real images that must have been seen before their statistics are used."""


class RunningSums:
    """Named sums over examples, in float64, that stop growing once enough examples were seen.

    What a step's chunks bring waits until the last of them, so that all of a step's penalties see the sums of the steps
    before it. Ranks are added up there, in one collective a step, and in none once the sums have stopped.

    Args:
        learn: Examples after which nothing more is taken, or infinite; the step that reaches it is taken whole.
    """

    def __init__(self, learn: float | int):
        self.seen = 0
        self._learn = learn
        self._sums: dict[str, Tensor] = {}
        self._pending: dict[str, Tensor] = {}

    @property
    def learning(self) -> bool:
        """Whether more examples are wanted."""
        return self.seen < self._learn

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take a chunk's values by name, one value or array of values for each example, summed over examples.

        An example with a value that is not finite is left out: one bad image must not spoil what is never forgotten.

        Raises:
            ValueError: If a shape is not that of the examples before.
        """
        for name, value in values.items():
            known = self._pending.get(name, self._sums.get(name))
            if known is not None and known.shape != value.shape[1:]:
                raise ValueError(
                    f"the running mean of {name} has shape {tuple(known.shape)}, and now {tuple(value.shape[1:])} "
                    "came: all images must have one size; crop or scale them, or train without aspect-ratio buckets"
                )
        finite = torch.stack(
            [value.detach().isfinite().reshape(len(value), -1).all(1) for value in values.values()]
        ).all(0)
        # Float64 where the device has it.
        dtype = torch.float32 if finite.device.type == "mps" else torch.float64
        for name, value in values.items():
            kept = torch.where(finite.view(-1, *[1] * (value.ndim - 1)), value.detach(), 0)
            self._grow(name, kept.sum(0, dtype=dtype))
        self._grow("count", finite.sum(dtype=dtype))

    def settle(self, share: Share, kept: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Count what waits, if this was the rank's last chunk of the step.

        Args:
            share: The chunk's place in the step.
            kept: What some of the sums before are multiplied by.

        Returns:
            The step's own sums, over all ranks; empty before the last chunk.
        """
        if not share.last or not self._pending:
            return {}
        step = self._over_ranks(share.world)
        for name, total in step.items():
            if name in self._sums:
                before = self._sums[name]
                if kept and name in kept:
                    before = before * kept[name]
                total = before.to(total.device) + total
            self._sums[name] = total
        self.seen += share.total
        self.forget()
        return step

    def total(self, name: str) -> Tensor:
        """Sum over the examples of the steps before this one."""
        return self._sums[name]

    def mean(self, name: str) -> Tensor:
        """Mean over the examples of the steps before this one."""
        return self._sums[name] / self._sums["count"]

    def unbiased(self, mean_square: Tensor, square_of_mean: Tensor) -> Tensor:
        """The variance, from a mean of squares and the square of a mean: half the mean distance of two examples."""
        count = self._sums["count"]
        return (mean_square - square_of_mean).clamp(min=0) * (count / (count - 1).clamp(min=1))

    def forget(self) -> None:
        """Let go of what waits."""
        self._pending = {}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums and how many examples were seen; empty before the first."""
        return {**self._sums, "seen": torch.tensor(self.seen)} if self.seen else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.forget()
        self.seen = int(state["seen"]) if state else 0
        self._sums = {name: total.clone() for name, total in state.items() if name != "seen"}

    def _grow(self, name: str, total: Tensor) -> None:
        self._pending[name] = self._pending[name] + total if name in self._pending else total

    def _over_ranks(self, world: int) -> dict[str, Tensor]:
        if world == 1:
            return self._pending
        flat = torch.cat([total.flatten() for total in self._pending.values()])
        distributed.all_reduce(flat)
        parts = flat.split([total.numel() for total in self._pending.values()])
        return {name: part.view_as(self._pending[name]) for name, part in zip(self._pending, parts, strict=True)}
