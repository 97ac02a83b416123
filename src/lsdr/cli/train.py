"""`lsdr train`."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsdr import runs
from lsdr.diffusion.config import DiffusionConfig
from lsdr.experiments.fields import differences, to_dict
from lsdr.experiments.lock import alone
from lsdr.experiments.methods import Method, resolve
from lsdr.experiments.states import read_status

# What a run may be resumed with anew: more steps, other intervals of recording, other means of reading, another guard.
_MAY_CHANGE = (
    "steps",
    "log_every",
    "evaluate_every",
    "sample_every",
    "checkpoint_every",
    "keep",
    "workers",
    "trackers",
    "guard",
)


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
    weight; package.module:function names a function of yours that returns a tuple of regularizers."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; on a CPU the result is bitwise that of a run never interrupted."""
    config: DiffusionConfig = field(default_factory=DiffusionConfig)
    """What to train and how."""

    def run(self) -> int:
        """Train, measure, report."""
        method = resolve(self.method)
        config = replace(self.config, training=replace(self.config.training, **method.overrides))
        if os.environ.get("RANK", "0") != "0":  # under `accelerate launch` one rank speaks for all
            return self._train(config, method)
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            _claim(self.out, {"method": method.name, **to_dict(config)}, resume=self.resume)
            if _is_finished(self.out, config.training.steps):
                print(f"{self.out} is finished already, after {config.training.steps} steps")
                return 0
            return self._train(config, method)

    def _train(self, config: DiffusionConfig, method: Method) -> int:
        # torch is imported here and not above, so that help and wrong options answer at once.
        from accelerate import PartialState

        from lsdr.diffusion.run import run
        from lsdr.report.report import write_report

        outcome = run(config, method.build(), self.out, show_progress=True)
        if PartialState().is_main_process:
            if outcome.status != "interrupted":
                print_left_out(runs.read_json(self.out / "data.json"))
            print(f"{outcome.status} at step {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
            if outcome.status == "interrupted":
                print("to go on, repeat the command with --resume")
            print(f"report: {write_report(self.out)}")
        return {"finished": 0, "interrupted": 130}.get(outcome.status, 1)


def _claim(directory: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Make the folder this run's own, or refuse: never mix two runs in one folder."""
    path = directory / "config.json"
    # A run that failed before its first record has left nothing worth keeping, and its options may have been the fault.
    held = path.exists() and any((directory / name).exists() for name in ("checkpoints", "metrics.jsonl"))
    if held and not resume:
        raise ValueError(f"{directory} already holds a run; add --resume to go on with it, or name another --out")
    if resume and not held:
        print(f"nothing to resume in {directory}: starting anew", file=sys.stderr)
    if held:
        differing = differences(_fixed(runs.read_json(path)), _fixed(config))
        if differing:
            raise ValueError(
                f"{directory} holds a run with other options ({'; '.join(differing)}); repeat its options to resume "
                "it, or name another --out"
            )
        taken = read_status(directory).get("step", 0)
        if taken > config["training"]["steps"]:
            raise ValueError(
                f"{directory} has taken {taken} steps already, not {config['training']['steps']} as asked for; give "
                f"--steps {taken} or more, or name another --out"
            )
    runs.write_json(path, config)
    command = shlex.join(["lsdr", *sys.argv[1:]])
    runs.write_json(directory / "environment.json", {**runs.environment(), "command": command})


def _is_finished(directory: Path, steps: int) -> bool:
    """Whether the run has taken these steps and been measured."""
    found = read_status(directory)
    return found["status"] == "finished" and found.get("step") == steps and (directory / "measures.json").exists()


def print_left_out(data: Mapping[str, Any]) -> None:
    """Say which files were left out of the data of this description, if any."""
    for problem in data["problems"]:
        examples = ", ".join(map(str, problem["examples"][:3])) + ", ..." * (problem["count"] > 3)
        print(f"left out of the data: {problem['count']} x {problem['kind']} ({examples})")


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    training = {name: value for name, value in config["training"].items() if name not in _MAY_CHANGE}
    return {**config, "training": training}
