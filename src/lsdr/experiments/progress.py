"""What a comparison shows while it runs: a line for each run on a terminal, a line now and then in a log file."""

import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lsdr.experiments.states import Run, read_status

_EVERY = 10.0
"""Least seconds between two lines in a log file."""
_TAIL = 4096


class Display:
    """Shows the runs of a comparison; a context manager."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        """Start with `done` of `total` runs over."""
        self.console, self.total, self.done = console, total, done
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.overall = self.bars.add_task("runs", total=total, completed=done, detail=f"{done}/{total}")
        self.tasks: dict[Run, TaskID] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> "Display":
        """Begin to show."""
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        self.bars.stop()

    def started(self, run: Run) -> None:
        """A run has started or goes on."""
        self.tasks[run] = self.bars.add_task(run.title, total=None, detail="starting")
        self._line(f"{run.title}: started")

    def ended(self, run: Run, status: str, message: str) -> None:
        """A run is over."""
        self.done += 1
        self.bars.remove_task(self.tasks.pop(run))
        self.bars.update(self.overall, completed=self.done, detail=f"{self.done}/{self.total}")
        text = f"{run.title}: {status} ({self.done}/{self.total})"
        # markup=False: messages hold brackets that are not ours.
        self.console.print(f"{text}\n{message}" if message else text, markup=False, highlight=False)

    def update(self) -> None:
        """Read again how far the active runs are."""
        due = not self.console.is_terminal and time.monotonic() - self.last_line >= _EVERY
        if not (due or self.console.is_terminal):
            return
        states = {run: state(run.directory) for run in self.tasks}
        for run, (step, steps, detail) in states.items():
            self.bars.update(self.tasks[run], completed=step, total=steps, detail=detail)
        if due and states:
            self._line("; ".join(f"{run.title}: {detail}" for run, (_, _, detail) in states.items()))

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(f"{text} ({self.done}/{self.total} done)", markup=False, highlight=False)
            self.last_line = time.monotonic()


def state(directory: Path) -> tuple[int, int | None, str]:
    """Tell how far a run is, from its files.

    Args:
        directory: The run's folder.

    Returns:
        Step, steps (None while unknown) and a text: step, loss, time left.
    """
    status, record = read_status(directory), last_record(directory / "metrics.jsonl")
    steps = status.get("steps")
    if not steps:
        return 0, None, "starting"
    step = max(int(status.get("step") or 0), int(record.get("step") or 0))
    if step > steps:  # a method faster than the baseline trains on until it has had the same time
        return steps, steps, f"step {step}, on to equal wall-clock"
    if step == steps:
        return step, steps, f"{step}/{steps}, measuring"
    detail = f"{step}/{steps}"
    if record.get("loss") is not None:
        detail += f", loss {record['loss']:.4g}"
    if record.get("step_seconds"):
        detail += f", {_duration(float(record['step_seconds'] * (steps - step)))} left"
    return step, steps, detail


def last_record(path: Path) -> dict[str, Any]:
    """Read the last whole line of a file of JSON lines, from its end: it is asked for several times a second."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    for line in reversed(lines):
        try:
            return dict(json.loads(line))
        except ValueError:
            continue
    return {}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
