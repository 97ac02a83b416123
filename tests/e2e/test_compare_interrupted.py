"""A comparison is stopped in every way that there is, and goes on."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lsdr.runs import read_json, read_records

PROGRAM = """
import signal
import sys
from pathlib import Path
from fake_worker import FakeConfig, TASK
from lsdr.experiments.compare import compare
from lsdr.training.config import TrainingConfig

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are started deaf to it
config = FakeConfig(training=TrainingConfig(steps=20), pause=0.05)
compare(config, ["baseline", "clip"], [0, 1], Path(sys.argv[1]), task=TASK, jobs=2)
"""


@pytest.fixture
def begin(monkeypatch, tmp_path):
    helpers = str(Path(__file__).parents[1] / "experiments")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [helpers, os.environ.get("PYTHONPATH")])))
    started = []

    def go(out):
        with (tmp_path / "output.txt").open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(out)], stderr=file, stdout=file, start_new_session=True
            )
        started.append(process)
        return process

    yield go
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def records(out, name):
    return {str(path.parent.relative_to(out)): read_records(path) for path in sorted(out.glob(f"*/seed=*/{name}"))}


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed orphan that nobody has waited for yet is dead all the same.
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_repeated_equals_never_stopped(begin, tmp_path, how):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert begin(whole).wait() == 0

    process = begin(out)
    # Both baselines half-way: neither over, nothing else begun.
    wait_until(lambda: len(steps := records(out, "metrics.jsonl")) == 2 and all(len(s) > 5 for s in steps.values()))
    workers = [record["pid"] for starts in records(out, "starts.jsonl").values() for record in starts]
    os.killpg(process.pid, how)
    assert process.wait() != 0
    if how == signal.SIGINT:
        assert "interrupted; the same command goes on from here" in (tmp_path / "output.txt").read_text()
        assert read_json(out / "baseline" / "seed=0" / "status.json")["status"] == "interrupted"
        assert (out / "summary.json").exists()
        assert not any(alive(worker) for worker in workers)

    # At once: workers that lost their parent may be alive still, and must not write beside their successors.
    assert begin(out).wait() == 0
    assert not any(alive(worker) for worker in workers)
    for name in ("measures.json", "checkpoint.json"):
        for path in whole.glob(f"*/seed=*/{name}"):
            assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert records(out, "metrics.jsonl") == records(whole, "metrics.jsonl")
    assert read_json(out / "summary.json") == read_json(whole / "summary.json")
    assert [len(starts) for starts in records(out, "starts.jsonl").values()] == [2, 2, 1, 1]
    assert all(starts[-1]["step"] > 0 for name, starts in records(out, "starts.jsonl").items() if "baseline" in name)


def test_killed_worker_is_a_result_and_the_others_go_on(begin, tmp_path):
    process = begin(tmp_path)
    wait_until(lambda: len(records(tmp_path, "starts.jsonl")) >= 1)
    name, starts = next(iter(records(tmp_path, "starts.jsonl").items()))
    os.kill(starts[0]["pid"], signal.SIGKILL)
    assert process.wait() == 0
    status = read_json(tmp_path / name / "status.json")
    assert status["status"] == "crashed"
    assert "SIGKILL" in status["message"]
    summary = read_json(tmp_path / "summary.json")
    ended = [seed["status"] for method in summary["methods"] for seed in method["seeds"]]
    assert sorted(ended) == ["crashed", "finished", "finished", "finished"]
