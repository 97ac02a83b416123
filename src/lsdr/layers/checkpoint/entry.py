"""What a checkpoint says about one of its tensors."""

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Entry:
    """One stored tensor, known from headers alone.

    Attributes:
        name: What the checkpoint calls it.
        shape: Its sizes.
        dtype: What it is stored in.
        nbytes: Size in bytes, elements times element size.
        file: The file that holds it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    file: Path
