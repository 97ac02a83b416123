"""The optimiser of a run and the course of its learning rate."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsdr.training.config import TrainingConfig


def build_optimizer(
    parameters: Sequence[Tensor] | Sequence[dict[str, Any]], config: TrainingConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over the given parameters, with float32 or 8-bit moments.

    The 8-bit moments (bitsandbytes' AdamW8bit, blockwise dynamic quantisation) take 2 bytes a parameter, not 8;
    tensors of fewer than 4096 elements keep theirs in float32.

    Source: Loshchilov & Hutter 2019 (arXiv:1711.05101); Dettmers et al. 2022 (arXiv:2110.02861).

    Args:
        parameters: What is trained, or groups of it with options of their own, as torch's optimisers take them.
        config: Optimiser, learning rate, betas and weight decay.
        device: Where the parameters are.

    Returns:
        The optimiser.

    Raises:
        ValueError: If 8-bit moments are asked for and bitsandbytes is not installed or does not load.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> type(build_optimizer([weight], TrainingConfig(), torch.device("cpu"))).__name__
        'AdamW'
    """
    options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw8bit":
        optimizer: torch.optim.Optimizer = _bitsandbytes().optim.AdamW8bit(parameters, **options)
        return optimizer
    return torch.optim.AdamW(parameters, **options, fused=device.type in ("cpu", "cuda"))


def check_optimizer(config: TrainingConfig) -> None:
    """Find out whether the optimiser can be had, before anything costly is done.

    Raises:
        ValueError: As `build_optimizer`.
    """
    if config.optimizer == "adamw8bit":
        _bitsandbytes()


def learning_rate(config: TrainingConfig, step: int) -> float:
    r"""Learning rate of a step, counted from 0.

    .. math:: \eta_t = \eta \min(1, (t + 1) / w) \cdot
        \begin{cases} 1 & \text{constant} \\
        \tfrac12 (1 + \cos(\pi \max(0, t - s) / (T - s))) & \text{cosine} \end{cases}

    w is the warm-up, T the run's steps, s = w, or max(w, T / 2) for the flat cosine. The cosine's last step, T - 1,
    still has a rate above zero; steps beyond it have that of T - 1. A run that is resumed with more steps goes on along
    the longer run's cosine.

    Source: Loshchilov & Hutter 2017 (arXiv:1608.03983), equation 5, without restarts.

    Args:
        config: Rate, schedule, warm-up and steps.
        step: Which step.

    Returns:
        The rate.

    Example:
        >>> config = TrainingConfig(lr=1.0, lr_schedule="cosine", warmup=2, steps=6)
        >>> [round(learning_rate(config, step), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    rate = config.lr * min(1.0, (step + 1) / max(config.warmup, 1))
    start = config.warmup if config.lr_schedule == "cosine" else max(config.warmup, config.steps // 2)
    if config.lr_schedule == "constant" or step <= start:
        return rate
    done = (min(step, config.steps - 1) - start) / max(config.steps - start, 1)
    return rate * 0.5 * (1 + math.cos(math.pi * max(done, 0.0)))


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except Exception as error:  # without a driver that fits, its import fails in more ways than one
        raise ValueError(
            f"optimizer adamw8bit needs the package bitsandbytes, which does not load here ({error}): install it with "
            "`pip install bitsandbytes`, or use optimizer adamw"
        ) from error
