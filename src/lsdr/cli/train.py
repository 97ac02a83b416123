"""`lsdr train diffusion`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lsdr import runs
from lsdr.cli.run_folder import exit_status, print_left_out, run_in
from lsdr.diffusion.config import DiffusionConfig
from lsdr.experiments.fields import to_dict
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve


@dataclass(frozen=True, kw_only=True)
class TrainDiffusion:
    """Train a diffusion model on images, with or without a regularizer.

    Writes into --out: metrics, held-out loss, layer spectra, sample grids, checkpoints, model.safetensors (the final
    weights), diffusers/ (the averaged weights in diffusers' layout) and report.html. Several processes: start it with
    `accelerate launch` or torchrun.
    """

    out: Path = Path("runs/diffusion")
    """Folder of the run."""
    method: str = "baseline"
    """baseline, decorrelation, decorrelation_as_written, clip, weight_decay_matched, lambda_zero; NAME@WEIGHT sets the
    weight; package.module:function names a function of yours that returns a tuple of regularizers or a Method."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; on a CPU the result is bitwise that of a run never interrupted."""
    config: DiffusionConfig = field(default_factory=DiffusionConfig)
    """What to train and how."""

    def run(self) -> int:
        """Train, measure, report."""
        method = resolve(self.method)
        config = method.configure(self.config)
        options = {"method": method.name, **to_dict(config)}
        return run_in(self.out, options, partial(self._train, config, method), resume=self.resume)

    def _train(self, config: DiffusionConfig, method: Method) -> int:
        # torch is imported here and not above, so that help and wrong options answer at once.
        from accelerate import PartialState

        from lsdr.diffusion.run import run
        from lsdr.report.report import write_report

        outcome = run(config, method.build(), self.out, show_progress=True)
        if PartialState().is_main_process:
            if outcome.over:
                print_left_out(runs.read_json(self.out / "data.json"))
            print(f"{outcome.status} at step {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
            if not outcome.over:
                print("to go on, repeat the command with --resume")
            print(f"report: {write_report(self.out)}")
        return exit_status(outcome.status)
