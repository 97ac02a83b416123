"""The running mean of a number that depends on the noise level."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, distributed

_NODES, _LOWEST, _HIGHEST = 16, 1e-3, 1e3
# Examples that a node remembers: the mean of all at first, then it follows the network as it learns.
_MEMORY = 256.0


class RunningMean:
    r"""Means at 16 noise levels from 1e-3 to 1e3, linear in log sigma between.

    What comes during a step is put aside until the step is over, so that all its micro-batches and ranks use the
    same means. Sums are float64.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(2, _NODES, dtype=torch.float64)
        self._pending = torch.zeros_like(self._sums)

    def at(self, sigma: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """The mean at these noise levels, and 1 where there is one and else 0."""
        self._to(sigma.device)
        total, count = self._sums
        weights = _weights(sigma) * (count > 0)
        weight = weights.sum(1)
        known = weight > 0
        mean = weights @ (total / count.clamp(min=torch.finfo(count.dtype).tiny)) / torch.where(known, weight, 1)
        return mean, known.to(mean)

    def add(self, sigma: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> None:
        """Put values of the step aside; what is not finite is left out."""
        self._to(sigma.device)
        values = values.detach().double()
        good = values.isfinite()
        both = torch.stack([torch.where(good, values, 0.0), good.double()])
        self._pending += both @ _weights(sigma)

    def close(self, world: int) -> None:
        """Take over what was put aside, on all ranks: the step is over."""
        if world > 1:
            distributed.all_reduce(self._pending)
        room = (_MEMORY - self._pending[1]).clamp(min=0)
        kept = (room / self._sums[1].clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1)
        self._sums = kept * self._sums + self._pending
        self._pending.zero_()

    def forget(self) -> None:
        """Let go of what was put aside."""
        self._pending.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """The sums of the steps before."""
        return {"sums": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of something else.
        """
        if state.keys() != {"sums"} or state["sums"].shape != self._sums.shape:
            shapes = {key: tuple(value.shape) for key, value in state.items()}
            raise ValueError(f"expected running means as entry 'sums' of shape {tuple(self._sums.shape)}, got {shapes}")
        self._sums = state["sums"].clone()

    def _to(self, device: torch.device) -> None:
        self._sums, self._pending = self._sums.to(device), self._pending.to(device)


def _weights(sigma: Float[Tensor, " n"]) -> Float[Tensor, "n nodes"]:
    """How much of a noise level falls to each node: hat functions of log sigma."""
    scale = (_NODES - 1) / math.log(_HIGHEST / _LOWEST)
    position = ((sigma.double() / _LOWEST).log() * scale).clamp(0, _NODES - 1)
    nodes = torch.arange(_NODES, device=sigma.device, dtype=torch.float64)
    return (1 - (position[:, None] - nodes).abs()).clamp(min=0)
