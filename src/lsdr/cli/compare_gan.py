"""`lsdr compare gan`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lsdr.cli.comparison import run_comparison
from lsdr.cli.gan_options import refuse_contradictions
from lsdr.experiments.method import Method
from lsdr.experiments.task import GAN
from lsdr.gan.config import GanConfig


def _comparison_defaults() -> GanConfig:
    # A comparison runs many trainings side by side: its own files hold their curves.
    config = GanConfig()
    return replace(config, training=replace(config.training, trackers=()))


@dataclass(frozen=True, kw_only=True)
class CompareGan:
    """Train GANs with several methods over several seeds, and report which of them keep all modes.

    Equal seeds mean equal initial weights, data order and noise. Each method is measured after equal steps and again
    at the baseline's wall-clock: modes captured, high-quality share and reverse KL beside those of a perfect sampler,
    precision, recall and coverage, overfitting, divergence. A run that diverges or crashes is a result. Interrupted and
    repeated, the command goes on; runs that are over are kept. Writes summary.json and report.html into --out.

      lsdr compare gan --data grid --methods baseline,gan_r1_r2,packing,spectral_noise --seeds 10 --out runs/grid
      lsdr compare gan --data stacked-digits --methods baseline,relativistic_r1_r2 --seeds 5 --out runs/stacked
    """

    out: Path = Path("runs/compare-gan")
    """Folder of the comparison."""
    methods: str = "baseline,relativistic_r1_r2,spectral_noise"
    """Names with commas between: each is the plain GAN (baseline) and what its name says, whatever the options say;
    `options` is what they say. NAME@NUMBER sets a number, package.module:function is a method of yours.
    - losses: hinge, relativistic; the discriminator sees several: packing
    - penalties: gan_r1, gan_r1_r2, relativistic_r1, relativistic_r1_r2
    - more penalties: consistency, mode_seeking, spectral_penalty
    - noise at the discriminator: adaptive_noise, fixed_noise
    - noise at the generator: denoising (in data space), latent_noise
    - spectral norms: spectral_normalization, spectral_normalization_discriminator, residual_spectral
    - activations, weights: standardization, standardization_both, magnitude_preserving, fixup
    - together: spectral_noise, standardization_noise
    - together: relativistic_r1_r2_noise, relativistic_r1_r2_fixed_noise
    - controls: baseline, clip, weight_decay"""
    seeds: int = 5
    """How many seeds; fewer than five cannot show a difference, and rates of divergence need ten."""
    engine: Literal["local", "ray"] = "local"
    """Processes on this machine, or Ray (pip install 'lsdr[ray]')."""
    jobs: int | None = None
    """Runs at a time; by default one a processor."""
    config: GanConfig = field(default_factory=_comparison_defaults)
    """What to train and how."""

    def run(self) -> int:
        """Compare, then report."""
        return run_comparison(
            self.config, self.methods, self.seeds, self.out, task=GAN, check=_check, engine=self.engine, jobs=self.jobs
        )


def _check(config: GanConfig, methods: Sequence[Method]) -> None:
    """Find what is wrong with data, model or methods now, and not in every run."""
    import torch

    from lsdr.gan.build import build_task, load_data
    from lsdr.regularizers.attach import attach

    refuse_contradictions(config, methods)
    data = load_data(config)
    for method in methods:
        try:  # each by itself: a method may change the model
            task = build_task(method.configure(config), data, torch.device("cpu"))
            with attach(task.model, *method.build()):
                pass  # a regularizer that finds no layer of this model says so here
        except ValueError as error:
            raise ValueError(f"method {method.name}: {error}") from error
