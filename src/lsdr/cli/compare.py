"""`lsdr compare diffusion`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lsdr.cli.comparison import run_comparison
from lsdr.diffusion.config import DiffusionConfig
from lsdr.experiments.method import Method
from lsdr.experiments.task import DIFFUSION
from lsdr.training.config import TrainingConfig


def _comparison_defaults() -> DiffusionConfig:
    # A comparison runs many trainings side by side: its own files hold their curves, and stability is tested.
    return DiffusionConfig(training=TrainingConfig(trackers=()), lr_grid_steps=40)


@dataclass(frozen=True, kw_only=True)
class CompareDiffusion:
    """Train diffusion models with several methods over several seeds, and report what each did.

    Equal seeds mean equal initial weights, data order and noise. Every method is measured after equal steps and again
    at the baseline's wall-clock. A run that diverges or crashes is a result. Interrupted and repeated, the command goes
    on; runs that are over are kept. Writes summary.json and report.html into --out.
    """

    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    methods: str = "baseline,decorrelation"
    """Names with commas between. NAME@WEIGHT sets a weight, package.module:function is a method of yours.
    - layers, weights: decorrelation, decorrelation_as_written, spectral_normalization, spectral_penalty
    - image spectra: discriminator, discriminator_learned
    - denoising step, mean values: decomposition_eigenvalues, decomposition_singular
    - denoising step, others: operator_hinge, operator_asymmetry, operator_frobenius
    - controls: baseline, clip, weight_decay_matched, lambda_zero"""
    seeds: int = 5
    """How many seeds; fewer than five cannot show a difference."""
    engine: Literal["local", "ray"] = "local"
    """Processes on this machine, or Ray (pip install 'lsdr[ray]')."""
    jobs: int | None = None
    """Runs at a time; by default one a processor."""
    config: DiffusionConfig = field(default_factory=_comparison_defaults)
    """What to train and how."""

    def run(self) -> int:
        """Compare, then report."""
        return run_comparison(
            self.config,
            self.methods,
            self.seeds,
            self.out,
            task=DIFFUSION,
            check=_check,
            engine=self.engine,
            jobs=self.jobs,
        )


def _check(config: DiffusionConfig, methods: Sequence[Method]) -> None:
    """Find what is wrong with data, model or methods now, and not in every run."""
    import torch

    from lsdr.diffusion.build import build_task, load_data
    from lsdr.regularizers.attach import attach

    data = load_data(config)
    task = build_task(config, data, torch.device("cpu"))
    for method in methods:
        with attach(task.model, *method.build()):
            pass  # a regularizer that finds no layer of this model says so here
