"""The folder of one training run: taken by one run alone, and resumed only with the options that it began with."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lsdr import runs
from lsdr.data.problem import USED
from lsdr.experiments.fields import differences
from lsdr.experiments.lock import alone
from lsdr.experiments.states import read_status

# What a run may be resumed with anew: more steps, other intervals of recording, other means of reading, another guard,
# and the batch in more or fewer micro-batches, where memory has run out.
_MAY_CHANGE = (
    "steps",
    "accumulate",
    "log_every",
    "evaluate_every",
    "sample_every",
    "checkpoint_every",
    "keep",
    "workers",
    "trackers",
    "guard",
)


def run_in(
    directory: Path,
    config: dict[str, Any],
    train: Callable[[], int],
    *,
    resume: bool,
    may_change: tuple[str, ...] = (),
) -> int:
    """Train in a folder that no other command uses meanwhile, unless the run in it is finished; returns the exit code.

    Args:
        directory: The run's folder; made if it is missing.
        config: As in `claim`.
        train: What trains, and gives the exit code.
        resume: As in `claim`.
        may_change: As in `claim`.

    Raises:
        ValueError: As `claim`, or if another command is at work in the folder.
    """
    if os.environ.get("RANK", "0") != "0":  # under `accelerate launch` one rank speaks for all
        return train()
    directory.mkdir(parents=True, exist_ok=True)
    with alone(directory):
        claim(directory, config, resume=resume, may_change=may_change)
        steps = config["training"]["steps"]
        if is_finished(directory, steps):
            print(f"{directory} is finished already, after {steps} steps")
            return 0
        return train()


def claim(directory: Path, config: dict[str, Any], *, resume: bool, may_change: tuple[str, ...] = ()) -> None:
    """Make the folder this run's own, or refuse: never mix two runs in one folder.

    Args:
        directory: The run's folder.
        config: Its options as plain values, those of training under "training".
        resume: Whether to go on with what is there.
        may_change: Options beside those of training that may differ when a run is resumed.

    Raises:
        ValueError: If the folder holds a run and `resume` is not set, or one with other options, or one that has taken
            more steps.
    """
    path = directory / "config.json"
    # A run that failed before its first record has left nothing worth keeping, and its options may have been the fault.
    held = path.exists() and any((directory / name).exists() for name in ("checkpoints", "metrics.jsonl"))
    if held and not resume:
        raise ValueError(f"{directory} already holds a run; add --resume to go on with it, or name another --out")
    if resume and not held:
        print(f"nothing to resume in {directory}: starting anew", file=sys.stderr)
    if held:
        differing = differences(_fixed(runs.read_json(path), may_change), _fixed(config, may_change))
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


def is_finished(directory: Path, steps: int) -> bool:
    """Whether the run has taken these steps and been measured."""
    found = read_status(directory)
    return found["status"] == "finished" and found.get("step") == steps and (directory / "measures.json").exists()


def print_left_out(data: Mapping[str, Any]) -> None:
    """Say which files were left out of the data of this description, or used otherwise than they are, if any."""
    for problem in data["problems"]:
        examples = ", ".join(map(str, problem["examples"][:3])) + ", ..." * (problem["count"] > 3)
        what = "used, not as it is" if problem["kind"] in USED else "left out of the data"
        print(f"{what}: {problem['count']} x {problem['kind']} ({examples})")


def exit_status(status: str) -> int:
    """What a command that trains ends with: 0 done, 130 interrupted, 1 whatever else became of the run."""
    return {"finished": 0, "interrupted": 130}.get(status, 1)


def _fixed(config: dict[str, Any], may_change: tuple[str, ...]) -> dict[str, Any]:
    training = {name: value for name, value in config["training"].items() if name not in _MAY_CHANGE}
    return {name: value for name, value in config.items() if name not in may_change} | {"training": training}
