import io

import pytest
from rich.console import Console

from lsdr.experiments import progress
from lsdr.experiments.progress import Display, last_record, state
from lsdr.experiments.states import Run
from lsdr.runs import append_record, write_json


def write(directory, step, steps, **record):
    write_json(directory / "status.json", {"status": "running", "step": step, "steps": steps})
    append_record(directory / "metrics.jsonl", {"step": step, **record})


def test_state(tmp_path):
    assert state(tmp_path) == (0, None, "starting")
    write(tmp_path, 10, 100, loss=0.123456, step_seconds=2.0)
    assert state(tmp_path) == (10, 100, "10/100, loss 0.1235, 3 min 00 s left")
    write(tmp_path, 100, 100, loss=0.1, step_seconds=2.0)
    assert state(tmp_path) == (100, 100, "100/100, measuring")
    write(tmp_path, 140, 100, loss=0.1, step_seconds=2.0)
    assert state(tmp_path) == (100, 100, "step 140, on to equal wall-clock")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")])
def test_time_left(tmp_path, seconds, text):
    write(tmp_path, 1, 2, loss=1.0, step_seconds=seconds)
    assert state(tmp_path)[2] == f"1/2, loss 1, {text} left"


def test_diverging_run_has_no_loss(tmp_path):
    write(tmp_path, 1, 2, loss=float("nan"))
    assert state(tmp_path) == (1, 2, "1/2")


def test_last_record_of_a_file_that_is_being_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_record(path) == {}
    for step in range(1000):
        append_record(path, {"step": step, "filling": "x" * 50})
    with path.open("a") as file:
        file.write('{"step": 1000, "fil')
    assert last_record(path)["step"] == 999


@pytest.fixture
def run(tmp_path):
    return Run.of(tmp_path, "method", 3)


def test_log_file_gets_a_line_now_and_then(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    with Display(Console(file=text, width=200), total=2, done=0) as display:
        display.started(run)
        write(run.directory, 1, 4, loss=0.5)
        for _ in range(300):
            now[0] += 0.1
            display.update()
        display.ended(run, "crashed", "[red]no markup[/red]")
    assert text.getvalue().splitlines() == [
        "method seed=3: started (0/2 done)",
        "method seed=3: 1/4, loss 0.5 (0/2 done)",
        "method seed=3: 1/4, loss 0.5 (0/2 done)",
        "method seed=3: crashed (1/2)",
        "[red]no markup[/red]",
    ]


def test_terminal_gets_a_line_for_each_run(run):
    text = io.StringIO()
    with Display(Console(file=text, force_terminal=True, width=120), total=2, done=1) as display:
        display.started(run)
        write(run.directory, 1, 4, loss=0.5)
        display.update()
        display.bars.refresh()
    assert "method seed=3" in text.getvalue()
    assert "1/4, loss 0.5" in text.getvalue()
    assert "1/2" in text.getvalue()
