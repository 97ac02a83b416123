"""How to train: the options every training task shares. Imports no torch, so that help text is instant."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of the training loop."""

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 32
    """Examples per optimiser step, summed over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches per step: more needs less memory. Regularizer statistics stay those of the whole batch, for which
    the forward pass runs twice."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW, or AdamW whose moments take 2 bytes a weight instead of 8, which needs the package bitsandbytes."""
    lr: float = 1e-3
    """Learning rate of AdamW after warm-up."""
    lr_schedule: Literal["constant", "cosine", "flat_cosine"] = "constant"
    """Learning rate after warm-up: constant, or falling to zero at the last step along half a cosine, at once or
    (flat_cosine) from the middle of the run on."""
    warmup: int = 50
    """Steps over which the learning rate rises linearly from zero."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    clip: float = 0.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: float = 0.99
    """Decay of the weights' exponential moving average, the weights that are sampled and measured."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Mixed precision of the model; fp16 needs a GPU. Spectral terms stay in float32."""
    compile: bool = False
    """Compile the model with torch.compile."""
    workers: int = 0
    """Processes that read data ahead; 0 reads in the training process."""
    seed: int = 0
    """Decides initial weights, data order and noise; runs with equal seeds are paired."""
    log_every: int = 10
    """Steps between records in metrics.jsonl and the trackers."""
    evaluate_every: int = 100
    """Steps between held-out evaluations."""
    sample_every: int = 500
    """Steps between sample grids and layer spectra; 0 for the end only."""
    monitor_every: int = 50
    """Steps between looks at the weights' largest singular values and stable ranks while they train, kept within 1% of
    the training time by looking at fewer layers or less often; 0 for none."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints to keep."""
    guard: Literal["stop", "skip", "rollback", "off"] = "stop"
    """On a non-finite loss or gradient, or a loss ten times its running median: stop, skip the step, or go back to the
    last checkpoint and leave the step out; after ten in a row the run counts as diverged. Off looks at nothing."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Accelerate's trackers to log to (tensorboard, wandb, trackio, ...); give none with an empty list."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work, before anything is built."""
        for name in ("steps", "batch_size", "accumulate", "log_every", "evaluate_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "workers", "sample_every", "monitor_every", "clip", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}; 0 means no averaging")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate={self.accumulate} micro-batches cannot be cut from batch_size={self.batch_size} examples; "
                "lower accumulate or raise batch_size"
            )
