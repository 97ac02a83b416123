"""Products that are what their type says, whatever the training run has switched on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, no TF32 convolutions, no gradient: float32 products have 24 bits, and bounds made of them hold.

    cuDNN convolves float32 in TF32 (11 bits) unless told otherwise. That switch is the process's, so it is put back
    afterwards; `torch.set_float32_matmul_precision` is the caller's own choice and is left alone.

    Args:
        device: Where the products are computed.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        # torch 2.9 renamed the switch, and refuses to read the old name where both were used.
        owner, name, off = (
            (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
        )
        before = getattr(owner, name)
        setattr(owner, name, off)
        try:
            yield
        finally:
            setattr(owner, name, before)
