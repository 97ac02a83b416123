"""`lsdr demo`."""

from dataclasses import dataclass
from pathlib import Path

from lsdr.cli.compare import CompareDiffusion
from lsdr.diffusion.config import DiffusionConfig
from lsdr.diffusion.measures.config import MeasureConfig
from lsdr.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train on embedded photographs with and without LSDR, and write a report: under five minutes on two cores.

    The same as `lsdr compare diffusion` with few steps and two seeds. That is enough to see every part at work, and too
    little to prove anything: the report says so.
    """

    out: Path = Path("runs/demo")
    """Folder of the comparison; an interrupted demo goes on from there."""

    def run(self) -> int:
        """Compare plain training and decorrelation on crops of two photographs."""
        training = TrainingConfig(steps=500, batch_size=16, lr=2e-3, sample_every=250, evaluate_every=50, trackers=())
        config = DiffusionConfig(
            data="patches", lr_grid_steps=20, training=training, measure=MeasureConfig(samples=128)
        )
        return CompareDiffusion(out=self.out, methods="baseline,decorrelation", seeds=2, config=config).run()
