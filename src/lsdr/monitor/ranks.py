"""What several processes must agree on, so that none waits for another that does not come."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed, nn

from lsdr.moments import Moments


def world_size() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that decides and logs."""
    return world_size() == 1 or distributed.get_rank() == 0


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter lies in pieces on several processes (DTensor: FSDP2, tensor parallelism)."""
    return any(hasattr(parameter, "device_mesh") for parameter in model.parameters())


def agree(chosen: Sequence[int], count: int) -> list[int]:
    """The first process's choice among `count` units, on all of them. Every process must call."""
    flags = torch.zeros(count, dtype=torch.uint8, device=_device())
    if chosen:
        flags[list(chosen)] = 1
    distributed.broadcast(flags, src=0)
    return flags.nonzero().flatten().tolist()


def merge_moments(measured: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Moments of all processes' rows, for the layers that ran on every process. Every process must call."""
    ran = torch.tensor([isinstance(measured.get(name), Moments) for name in names], dtype=torch.uint8, device=_device())
    distributed.all_reduce(ran, distributed.ReduceOp.MIN)
    rows = {
        name: measured[name].all_reduce() for name, everywhere in zip(names, ran.tolist(), strict=True) if everywhere
    }
    return {**{name: value for name, value in measured.items() if not isinstance(value, Moments)}, **rows}


def _device() -> torch.device:
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
