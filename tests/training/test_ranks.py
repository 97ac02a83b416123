"""Two ranks do what one process does: uneven shares, micro-batches, and a bad example on one rank only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsdr import runs

SCRIPT = str(Path(__file__).with_name("ranks.py"))


@pytest.mark.parametrize("guard", ["skip", "rollback"])
def test_two_ranks_end_where_one_process_does(tmp_path, guard):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, words in {"one": [], "two": launch}.items():
        result = subprocess.run(
            [sys.executable, *words, SCRIPT, str(tmp_path / name), guard],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "snapshots" / "final" / "model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-10)
    events = {name: runs.read_records(tmp_path / name / "events.jsonl") for name in ("one", "two")}
    assert [event["step"] for event in events["one"]] == [event["step"] for event in events["two"]]
    assert events["one"]
    for one_event, two_event in zip(events["one"], events["two"], strict=True):
        assert two_event["direction"] == one_event["direction"] == "input"
        assert two_event["names"] == one_event["names"] == ["point 17"]
        assert two_event["batch"] == one_event["batch"]
