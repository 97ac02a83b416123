"""Cut off at any step and gone on with, a run ends bitwise as if nothing had happened, killed by the system or not."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from lsdr import runs
from lsdr.representation.objective import objective_regularizers
from lsdr.representation.run import run
from lsdr.training.loop import train
from lsdr.training.stepper import build_accelerator

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


class Killed(Exception):
    pass


def training(directory, settings, kill_at=None):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    AcceleratorState._reset_state(reset_partial_state=True)
    return train(
        small.task(settings),
        settings.training,
        directory,
        build_accelerator(settings.training),
        regularizers=objective_regularizers(settings),
        on_step=on_step,
    )


def plain(record):
    return {name: value for name, value in record.items() if "seconds" not in name and name != "memory_mb"}


def same(whole, cut, step=8):
    for name in ("model", "ema", "optimizer"):
        files = [each / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors" for each in (cut, whole)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        records = [[plain(record) for record in runs.read_records(each / name)] for each in (cut, whole)]
        assert records[0] == records[1]
        assert records[0]


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "sigreg", "contaminate": 0.2, "training": {"accumulate": 2}},
        {"data": "breast-cancer", "objective": "barlow_twins", "robust": "huber"},
        {"data": "texts", "length": 8, "vocabulary": 300, "training": {"accumulate": 2}},  # with dropout
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_a_cut_and_resumed_run_ends_bitwise_equal(tmp_path, options):
    if options.get("data") == "texts":
        options = {**options, "data": small.texts(tmp_path / "texts")}
    settings = small.config(**options)
    assert training(tmp_path / "whole", settings).status == "finished"
    for kill_at in (2, 7):
        with pytest.raises(Killed):
            training(tmp_path / "cut", settings, kill_at)
        torch.randn(100)  # whatever else happened to the global generator must not matter
    assert training(tmp_path / "cut", settings).status == "finished"
    same(tmp_path / "whole", tmp_path / "cut")


def test_a_process_killed_by_the_system_goes_on_bitwise(tmp_path):
    settings = small.config()
    script = str(Path(__file__).with_name("killed.py"))
    process = subprocess.run(
        [sys.executable, script, str(tmp_path / "cut"), "vicreg", "5"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
    assert runs.read_json(tmp_path / "cut" / "status.json")["status"] == "running"
    assert not (tmp_path / "cut" / "measures.json").exists()
    AcceleratorState._reset_state(reset_partial_state=True)
    for name in ("whole", "cut"):
        assert run(settings, (), tmp_path / name).status == "finished"
    same(tmp_path / "whole", tmp_path / "cut")
    whole, cut = (plain(runs.read_json(tmp_path / name / "measures.json")) for name in ("whole", "cut"))
    assert whole == cut
