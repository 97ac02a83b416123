"""`lsdr compare representation`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lsdr.cli.comparison import run_comparison
from lsdr.cli.representation_options import refuse_contradictions
from lsdr.experiments.method import Method
from lsdr.experiments.task import REPRESENTATION
from lsdr.representation.config import RepresentationConfig


def _comparison_defaults() -> RepresentationConfig:
    # A comparison runs many trainings side by side: its own files hold their curves.
    config = RepresentationConfig()
    return replace(config, training=replace(config.training, trackers=()))


@dataclass(frozen=True, kw_only=True)
class CompareRepresentation:
    """Learn codes with several methods over several seeds, and report which of them are worth more.

    Equal seeds mean equal initial weights, data order and views. Each method is measured after equal steps and again at
    the baseline's wall-clock: linear and nearest-neighbour probes with 1, 10 and 100 % of the labels, invariance to
    each transformation, accuracy on corrupted examples, ranks of the codes, overfitting, collapse. Beside every method
    stand three that learn nothing: raw inputs, their principal components, the encoder with its initial weights.
    Interrupted and repeated, the command goes on; runs that are over are kept. Writes summary.json and report.html into
    --out.

      lsdr compare representation --data digits --methods baseline,sim_clr,sigreg --seeds 5 --out runs/objectives
      lsdr compare representation --data photos/ --size 32 --methods baseline,layer_wise --out runs/layers
      lsdr compare representation --contaminate 0.05 --methods baseline,trimmed,huber --out runs/outliers
    """

    out: Path = Path("runs/compare-representation")
    """Folder of the comparison."""
    methods: str = "baseline,log_participation_ratio,sim_clr"
    """Names with commas between: each is VICReg (baseline) and what its name says, whatever the options say; `options`
    is what they say. NAME@NUMBER sets a number, package.module:function is a method of yours.
    - objectives: baseline, barlow_twins, log_participation_ratio, spectral_contrastive, sigreg, sim_clr
    - at every block as well: layer_wise, layer_wise_log_participation_ratio
    - against outliers: trimmed, huber
    - controls: clip, weight_decay"""
    seeds: int = 5
    """How many seeds; fewer than five cannot show a difference."""
    engine: Literal["local", "ray"] = "local"
    """Processes on this machine, or Ray (pip install 'lsdr[ray]')."""
    jobs: int | None = None
    """Runs at a time; by default one a processor."""
    config: RepresentationConfig = field(default_factory=_comparison_defaults)
    """What to learn from and how."""

    def run(self) -> int:
        """Compare, then report."""
        return run_comparison(
            self.config,
            self.methods,
            self.seeds,
            self.out,
            task=REPRESENTATION,
            check=_check,
            engine=self.engine,
            jobs=self.jobs,
        )


def _check(config: RepresentationConfig, methods: Sequence[Method]) -> None:
    """Find what is wrong with data, encoder or methods now, and not in every run."""
    import torch

    from lsdr.regularizers.attach import attach
    from lsdr.representation.build import build_task, load

    refuse_contradictions(config, methods)
    data = load(config)
    for method in methods:
        try:  # each by itself: a method may change the encoder
            task = build_task(method.configure(config), data, torch.device("cpu"))
            with attach(task.model, *method.build()):
                pass  # a regularizer that finds no layer of this model says so here
        except ValueError as error:
            raise ValueError(f"method {method.name}: {error}") from error
