"""A task that trains nothing: it walks through steps, checkpoints, and fails where told. No torch."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from lsdr.experiments.method import Method
from lsdr.experiments.task import Task
from lsdr.runs import append_record, keep_records, read_json, write_json
from lsdr.training.config import TrainingConfig


@dataclass(frozen=True)
class Measure:
    label: str
    unit: str
    better: str | None
    description: str


MEASURES = {
    "heldout_loss": Measure("Held-out loss", "", "lower", "The walk's end."),
    "step_seconds": Measure("Time per step", "s", "lower", "As told."),
    "step_seconds_ratio": Measure("Time per step", "x baseline", "lower", "As told."),
    "diverged": Measure("Diverged", "", "lower", "0 or 1."),
}
TASK = Task(name="fake", run="fake_worker:run", measures="fake_worker:MEASURES")


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=5))
    pause: float = 0.0
    """Seconds a step."""
    fail: dict[str, str] = field(default_factory=dict)
    """How a method ends half-way: raise, exit, kill, diverge, stop."""


@dataclass(frozen=True)
class Nothing:
    weight: float = 1.0

    def attach(self, model):
        raise NotImplementedError


def stranger():
    """A stranger's method."""
    return (Nothing(),)


def tuned():
    """A stranger's method that sets options."""
    return Method("tuned", "Another learning rate.", overrides={"lr": 0.5, "pause": 0.01}, number=("lr",))


def not_a_tuple():
    return Nothing()


def run(config, regularizers, directory, *, reference_seconds):
    steps, checkpoint = config.training.steps, directory / "checkpoint.json"
    start, value = read_json(checkpoint) if checkpoint.exists() else (0, 0)
    keep_records(directory / "metrics.jsonl", start)
    threads, gpu = os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES")
    append_record(directory / "starts.jsonl", {"step": start, "threads": threads, "pid": os.getpid(), "gpu": gpu})
    weights = [regularizer.weight for regularizer in regularizers]
    for step in range(start + 1, steps + 1):
        write_status(directory, "running", step - 1, steps)
        time.sleep(config.pause)
        failure = config.fail.get(directory.parent.name) if step > steps // 2 else None
        if failure == "raise":
            raise RuntimeError("planted")
        if failure == "exit":
            os._exit(7)
        if failure == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if failure == "diverge":
            write_status(directory, "diverged", step, steps, f"step {step}: planted")
            return
        if failure == "stop" and not start:
            write_status(directory, "interrupted", step - 1, steps)
            return
        text = f"{value} {step} {config.training.seed} {config.training.clip} {weights}"
        value = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        append_record(directory / "metrics.jsonl", {"step": step, "loss": value / 2**32, "step_seconds": 0.25})
        write_json(checkpoint, [step, value])
    measures = {"heldout_loss": value / 2**32, "step_seconds": 0.25}
    if reference_seconds is not None:
        measures |= {"heldout_loss@equal_time": value / 2**33, "reference": reference_seconds}
    write_json(directory / "measures.json", measures)
    write_json(directory / "data.json", {"source": "fake", "count": 3})
    write_status(directory, "finished", steps, steps)


def write_status(directory: Path, status: str, step: int, steps: int, message: str = "") -> None:
    write_json(directory / "status.json", {"status": status, "step": step, "steps": steps, "message": message})
