"""Several processes: one decides and logs, all take part, none waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def launch(tmp_path, world, kind):
    script = Path(__file__).with_name("rank.py")
    outputs = [tmp_path / f"{kind}-{world}-{rank}.json" for rank in range(world)]
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(world), tmp_path / f"meet-{kind}-{world}", outputs[rank], kind],
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error[-3000:]
    return [json.loads(path.read_text(encoding="utf-8")) for path in outputs]


def test_ranks_with_different_clocks_measure_the_same_layers_and_features_are_of_all_rows(tmp_path):
    first, second = launch(tmp_path, 2, "ddp")
    assert second["logged"] == []
    assert first["last"] == second["last"]
    assert first["turns"] == second["turns"] > 2
    assert len({len(values) for _, values in first["logged"]}) > 1  # turns of several sizes: the budget was at work
    (alone,) = launch(tmp_path, 1, "ddp")
    everything = dict(map(tuple, alone["logged"]))
    compared = 0
    for step, values in first["logged"]:
        for name, value in values.items():
            if step in everything and name.startswith(("features/", "weights/")) and "largest" not in name:
                assert value == pytest.approx(everything[step][name], rel=2e-2 if "weights" in name else 1e-4), name
                compared += name.startswith("features/")
    assert compared


def test_sharded_weights_are_measured_by_all_and_are_those_of_one_process(tmp_path):
    first, second = launch(tmp_path, 2, "fsdp")
    assert second["logged"] == []
    assert first["last"] == second["last"]
    (alone,) = launch(tmp_path, 1, "fsdp")
    assert [step for step, _ in first["logged"]] == [step for step, _ in alone["logged"]] == [0, 2, 4]
    for (_, mine), (_, theirs) in zip(first["logged"], alone["logged"], strict=True):
        for name, value in theirs.items():
            if not name.startswith("monitor/") and "largest" not in name:
                assert mine[name] == pytest.approx(value, rel=1e-4), name
