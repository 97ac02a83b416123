"""The running mean of a number that depends on the noise level."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.regularizers._running_sums import RunningSums
from lsdr.regularizers._shares import Share

_NODES, _LOWEST, _HIGHEST = 16, 1e-3, 1e3
# Examples that a node remembers: the mean of all at first, then it follows the network as it learns.
_MEMORY = 256.0


class RunningMean:
    """Means at 16 noise levels from 1e-3 to 1e3, linear in log sigma between; those of the steps before this one."""

    def __init__(self) -> None:
        self._sums = RunningSums(math.inf)

    def at(self, sigma: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """The mean at these noise levels, and 1 where there is one and else 0."""
        if not self._sums.seen:
            return torch.zeros_like(sigma), torch.zeros_like(sigma)
        total, count = (self._sums.total(name).to(sigma.device) for name in ("values", "weights"))
        weights = _weights(sigma).to(count) * (count > 0)
        weight = weights.sum(1)
        known = weight > 0
        mean = weights @ (total / count.clamp(min=torch.finfo(count.dtype).tiny)) / torch.where(known, weight, 1)
        return mean.to(sigma), known.to(sigma)

    def add(self, sigma: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> None:
        """Put values of the step aside; what is not finite is left out."""
        weights = _weights(sigma)
        self._sums.add({"values": weights * values.detach()[:, None], "weights": weights})

    def close(self, share: Share) -> None:
        """Take over what was put aside, on all ranks, if the step is over."""
        kept = {}
        if self._sums.seen:
            count = self._sums.total("weights")
            share_kept = (_MEMORY / count.clamp(min=torch.finfo(count.dtype).tiny)).clamp(max=1)
            kept = dict.fromkeys(("values", "weights"), share_kept)
        self._sums.settle(share, kept)

    def forget(self) -> None:
        """Let go of what was put aside."""
        self._sums.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; empty before the first step."""
        return self._sums.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of something else.
        """
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        expected = {"values": (_NODES,), "weights": (_NODES,), "count": (), "seen": ()}
        if state and shapes != expected:
            raise ValueError(f"expected running means, entries of the shapes {expected}, got {shapes}")
        self._sums.load_state_dict(state)


def _weights(sigma: Float[Tensor, " n"]) -> Float[Tensor, "n nodes"]:
    """How much of a noise level falls to each node: hat functions of log sigma."""
    scale = (_NODES - 1) / math.log(_HIGHEST / _LOWEST)
    position = ((sigma / _LOWEST).log() * scale).clamp(0, _NODES - 1)
    nodes = torch.arange(_NODES, device=sigma.device, dtype=sigma.dtype)
    return (1 - (position[:, None] - nodes).abs()).clamp(min=0)
