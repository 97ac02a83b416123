"""What a task adds to the monitor: probes of its own, and warnings that outlive a kill."""

import importlib.util
from pathlib import Path

import pytest

from lsdr import runs
from lsdr.training.loop import train
from lsdr.training.task import Task, events_of, probes_of

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)


class Killed(Exception):
    pass


class Watched(toy.ToyTask):
    """Counts what it is told, and warns at every fourth thing that it has been told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def probes(self, model):
        return {"mine": lambda model: {"bias": float(model[0].bias.detach().norm())}}

    def on_monitored(self, values, step):
        self.told.append((step, sorted(values)[0]))
        count = len(self.told)
        return [] if count % 4 else [{"kind": "overtraining", "message": f"told {count} times"}]


def run(directory, task, kill_at=None, **options):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    settings = toy.config(**{"monitor_every": 2, "evaluate_every": 3, **options})
    return train(task, settings, directory, toy.accelerator(settings), on_step=on_step)


def everything(monkeypatch):
    """Let the monitor measure at every turn, whatever it costs."""
    from lsdr.monitor.budget import Budget

    monkeypatch.setattr(Budget, "plan", lambda self: list(range(len(self.units))))


def test_the_tasks_probes_are_measured_and_the_task_is_told(tmp_path):
    task = Watched()
    run(tmp_path, task)
    records = runs.read_records(tmp_path / "monitor.jsonl")
    assert records
    assert all("mine/bias" in record for record in records)
    assert not any(name.startswith("weights/") for record in records for name in record)
    told = [step for step, name in task.told if name == "heldout_loss"]
    assert told == [2, 5, 8, 11]  # the values after 3 steps are those after step 2, counted from 0
    assert [step for step, name in task.told if name != "heldout_loss"] == [record["step"] for record in records]
    assert [step for step, _ in task.told] == sorted(step for step, _ in task.told)


def test_its_events_are_recorded(tmp_path):
    task = Watched()
    run(tmp_path, task)
    events = runs.read_records(tmp_path / "events.jsonl")
    expected = [step for count, (step, _) in enumerate(task.told, start=1) if count % 4 == 0]
    assert expected
    assert [event["step"] for event in events] == expected
    assert all(event["action"] == "none" and event["kind"] == "overtraining" for event in events)


@pytest.mark.parametrize("kill_at", [4, 6, 7, 9, 11])
def test_a_resumed_task_remembers_what_it_was_told(tmp_path, monkeypatch, kill_at):
    everything(monkeypatch)
    whole, cut = Watched(), Watched()
    run(tmp_path / "whole", whole)
    with pytest.raises(Killed):
        run(tmp_path / "cut", Watched(), kill_at=kill_at)
    run(tmp_path / "cut", cut)
    assert cut.told == whole.told
    for name in ("events", "monitor", "evaluations"):
        one, two = (runs.read_records(tmp_path / run / f"{name}.jsonl") for run in ("whole", "cut"))
        assert [record["step"] for record in two] == [record["step"] for record in one]
    assert runs.read_records(tmp_path / "cut" / "events.jsonl") == runs.read_records(
        tmp_path / "whole" / "events.jsonl"
    )


def test_a_task_without_the_two_methods_is_as_before(tmp_path):
    task = toy.ToyTask()
    assert isinstance(task, Task)
    assert probes_of(task, task.model) is None
    assert events_of(task, {"a": 1.0}, 0) == []
    run(tmp_path, task)
    assert any(name.startswith("weights/") for name in runs.read_records(tmp_path / "monitor.jsonl")[0])


def test_a_task_may_leave_the_probes_to_the_monitor(tmp_path):
    task = Watched()
    task.probes = lambda model: None
    run(tmp_path, task)
    assert any(name.startswith("weights/") for name in runs.read_records(tmp_path / "monitor.jsonl")[0])


def test_a_resumed_task_is_told_what_was_not_finite(tmp_path):
    """JSON has no word for NaN, and a missing value is not one."""
    task = Watched()
    task.feature_layers = lambda: None
    task.evaluate = lambda model: {"heldout_loss": float("nan")}
    run(tmp_path, task, steps=6)
    resumed, seen = Watched(), []
    resumed.feature_layers = lambda: None
    resumed.on_monitored = lambda values, step: seen.extend(values.values()) or []
    run(tmp_path, resumed, steps=6)
    assert seen
    assert all(isinstance(value, float | int) for value in seen)
    assert sum(value != value for value in seen) == 2
