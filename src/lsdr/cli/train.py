"""`lsdr train`."""

import os
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsdr import runs
from lsdr.diffusion.config import DiffusionConfig
from lsdr.experiments.fields import differences, to_dict

# A run may be resumed with more steps, other intervals of recording, or other means of reading.
_MAY_CHANGE = ("steps", "log_every", "workers", "keep", "trackers")


@dataclass(frozen=True, kw_only=True)
class TrainDiffusion:
    """Train a diffusion model on images, with or without a regularizer.

    Writes into --out: metrics, held-out loss, layer spectra, sample grids, checkpoints, model.safetensors (the final
    weights), diffusers/ (the averaged weights in diffusers' layout) and report.html. Works under `accelerate launch`.
    """

    out: Path = Path("runs/diffusion")
    """Folder of the run."""
    method: str = "baseline"
    """baseline, decorrelation, decorrelation_as_written, clip, weight_decay_matched, lambda_zero; NAME@WEIGHT sets the
    weight; package.module:function names a function of yours that returns a tuple of regularizers."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; on a CPU the result is bitwise that of a run never interrupted."""
    config: DiffusionConfig = field(default_factory=DiffusionConfig)
    """What to train and how."""

    def run(self) -> int:
        """Train, measure, report."""
        from lsdr.experiments.methods import resolve

        method = resolve(self.method)
        config = replace(self.config, training=replace(self.config.training, **method.overrides))
        if os.environ.get("RANK", "0") == "0":  # under `accelerate launch` one rank speaks for all
            _claim(self.out, {"method": method.name, **to_dict(config)}, resume=self.resume)
        # torch is imported here and not above, so that help and wrong options answer at once.
        from accelerate import PartialState

        from lsdr.diffusion.run import run
        from lsdr.report.report import write_report

        outcome = run(config, method.build(), self.out, show_progress=True)
        exit_status = {"finished": 0, "interrupted": 130}.get(outcome.status, 1)
        if not PartialState().is_main_process:
            return exit_status
        print(f"{outcome.status} at step {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
        print(f"report: {write_report(self.out)}")
        return exit_status


def _claim(directory: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Make the folder this run's own, or refuse: never mix two runs in one folder."""
    path = directory / "config.json"
    if path.exists() and not resume:
        raise ValueError(f"{directory} already holds a run; add --resume to go on with it, or name another --out")
    if path.exists():
        differing = differences(_fixed(runs.read_json(path)), _fixed(config))
        if differing:
            raise ValueError(
                f"{directory} holds a run with other options ({'; '.join(differing)}); repeat its options to resume "
                "it, or name another --out"
            )
    runs.write_json(path, config)
    command = shlex.join(["lsdr", *sys.argv[1:]])
    runs.write_json(directory / "environment.json", {**runs.environment(), "command": command})


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    training = {name: value for name, value in config["training"].items() if name not in _MAY_CHANGE}
    return {**config, "training": training}
