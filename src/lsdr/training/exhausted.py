"""Memory or disk used up: how to tell, and what to say to whoever has to make room."""

import errno
import shutil
from pathlib import Path

import torch

from lsdr.training.config import TrainingConfig

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """There is no room left where a run writes; the message says where, and how much was needed if that is known."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, of an accelerator or of the machine.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
        True
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
        True
        >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception means that a disk, or one's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def disk_full(folder: Path, needed: int) -> DiskFullError:
    """The error for a disk that had no room for `needed` bytes in `folder`."""
    try:
        free = f"{shutil.disk_usage(folder).free:,} bytes are free"
    except OSError:
        free = "how many are free cannot be told"
    return DiskFullError(
        errno.ENOSPC,
        f"the disk is full: {folder} needs {needed:,} bytes, {free} (less where a quota holds); free some space, "
        "lower keep, or move the folder to a larger disk",
    )


def memory_advice(config: TrainingConfig) -> str:
    """What lowers the memory of a step, of what this configuration does not do yet.

    Example:
        >>> memory_advice(TrainingConfig(batch_size=1, precision="bf16", optimizer="adamw8bit"))
        'train at a lower resolution, with gradient checkpointing, or by LoRA instead of fully'
    """
    advice = []
    if config.accumulate < config.batch_size:
        advice.append(
            f"cut the batch into more micro-batches (accumulate {config.accumulate} -> "
            f"{min(2 * config.accumulate, config.batch_size)}; regularizers see the whole batch's statistics still)"
        )
    advice += ["train at a lower resolution", "with gradient checkpointing"]
    if config.precision == "fp32":
        advice.append("in precision bf16")
    if config.optimizer == "adamw":
        advice.append("with optimizer adamw8bit")
    return ", ".join([*advice, "or by LoRA instead of fully"])
