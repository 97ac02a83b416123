"""The runs of a comparison as their folders tell them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsdr.diffusion.measures.learning_rate import median_step_seconds
from lsdr.runs import read_json, read_records

OVER = ("finished", "diverged", "crashed")
"""Statuses of a run that has had its result. Every other status, and none, means that it is yet to end."""


@dataclass(frozen=True)
class Run:
    """One method on one seed."""

    method: str
    seed: int
    directory: Path

    @classmethod
    def of(cls, experiment: Path, method: str, seed: int) -> "Run":
        """The run's place in an experiment directory."""
        return cls(method, seed, experiment / method / f"seed={seed}")

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.method} seed={self.seed}"


def read_status(directory: Path) -> dict[str, Any]:
    """Read a run's status.json; a run that has not started has the status "not started"."""
    path = directory / "status.json"
    return dict(read_json(path)) if path.exists() else {"status": "not started", "message": ""}


def step_seconds(directory: Path) -> float | None:
    """Median seconds of a training step as recorded, or None where nothing was."""
    records = read_records(directory / "metrics.jsonl")
    seconds = [record["step_seconds"] for record in records if record.get("step_seconds") is not None]
    return median_step_seconds(seconds) if seconds else None


def training_seconds(directory: Path) -> float | None:
    """Wall-clock of a finished run's training: its median step times its steps, so that a stall does not count."""
    status, step = read_status(directory), step_seconds(directory)
    if status["status"] != "finished" or step is None:
        return None
    return float(step * status["steps"])
