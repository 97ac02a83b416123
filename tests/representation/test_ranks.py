"""Two ranks with uneven shares do what one process does, for moments and for SimCLR's pairs."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from lsdr import runs

_spec = importlib.util.spec_from_file_location("ranks", Path(__file__).with_name("ranks.py"))
ranks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ranks)

OBJECTIVES = ("vicreg", "sim_clr")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, ranks.__file__, str(folder / "two"), *OBJECTIVES],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        AcceleratorState._reset_state(reset_partial_state=True)
        ranks.main(folder / "one", OBJECTIVES)
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return folder


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_ranks_end_where_one_process_does(trained, objective):
    one, two = (
        load_file(trained / name / objective / "snapshots" / "final" / "model.safetensors") for name in ("one", "two")
    )
    initial = load_file(next((trained / "one" / objective).glob("checkpoints/*/model.safetensors")))
    assert initial.keys() == one.keys()
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(two[name], tensor, rtol=1e-9, atol=1e-10)
    recorded = [runs.read_records(trained / name / objective / "metrics.jsonl") for name in ("one", "two")]
    for alone, together in zip(*recorded, strict=True):
        for name in ("loss", "penalty", "grad_norm"):
            assert together[name] == pytest.approx(alone[name], rel=1e-6), name  # recorded in float32
