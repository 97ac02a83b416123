"""Two ranks do what one process does: running statistics, adaptive noise, gradients of both players."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lsdr import runs

SCRIPT = str(Path(__file__).with_name("ranks.py"))


def test_two_ranks_end_where_one_process_does(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, words in {"one": [], "two": launch}.items():
        result = subprocess.run(
            [sys.executable, *words, SCRIPT, str(tmp_path / name)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "snapshots" / "final" / "model.safetensors") for name in ("one", "two"))
    assert one["noise.position"] > 0
    for name, tensor in one.items():
        if name.startswith("noise."):
            assert torch.equal(two[name], tensor), name
        else:
            torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)
    recorded = [runs.read_records(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    for alone, together in zip(*recorded, strict=True):
        assert alone["noise/level"] == together["noise/level"]
        assert abs(alone["discriminator/loss"] - together["discriminator/loss"]) < 1e-4
