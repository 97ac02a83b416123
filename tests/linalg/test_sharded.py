"""Weights that real processes hold in parts, against the whole ones in this process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).with_name("sharded_rank.py")
LINE = ["fsdp", "channels-last", "columns", "replicated"]
CASES = {2: LINE, 4: [*LINE, "hsdp", "two-dimensional", "both"]}
# Followed from the other side, so that only what has converged is the same.
OTHER_SIDE = ["columns", "both", "two-dimensional"]


def load_worker():
    spec = importlib.util.spec_from_file_location("sharded_rank", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker = load_worker()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory):
    """Results of every rank."""
    world = request.param
    folder = tmp_path_factory.mktemp(f"gloo-{world}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(world), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        failures = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(process.returncode == 0 for process in processes), "\n".join(failures)
    return [torch.load(folder / f"rank={rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def whole():
    """The same in one process: values by case and count."""
    found = {}
    for count in (1, 2):
        everything = worker.measure(worker.tensors(), count)
        found["all", count] = everything
        some = {name: w for name, w in worker.tensors().items() if name in ("even.weight", "wide.weight")}
        found["some", count] = worker.measure(some, count)
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_sharded_equals_whole(ranks, whole, count):
    for case in CASES[len(ranks)]:
        expected = whole["some" if case == "two-dimensional" else "all", count]
        for rank in ranks:
            prefix = f"{case}/{count}/"
            found = {key.removeprefix(prefix): value for key, value in rank.items() if key.startswith(prefix)}
            assert set(found) == set(expected)
            for key, value in expected.items():
                numbers, wanted, tolerance = found[key], value, 1e-6
                if value.ndim == 2:
                    numbers, wanted = found[key][:2], value[:2]
                    if case in OTHER_SIDE and "converged" not in key:
                        tolerance = 5e-2
                np.testing.assert_allclose(numbers, wanted, rtol=tolerance, err_msg=f"{prefix}{key}")


def test_all_ranks_say_the_same(ranks):
    for rank in ranks[1:]:
        for key, value in rank.items():
            if not key.startswith("sums/"):
                torch.testing.assert_close(value, ranks[0][key], rtol=0, atol=0, msg=key)


def test_one_sum_a_step(ranks):
    inputs = 10 + 12 + 9 + 54 + 40
    outputs = 16 + 7 + 1 + 5 + 6
    expected = {"fsdp": [inputs + 5], "columns": [outputs + 5], "replicated": []}
    if len(ranks) == 4:
        expected["hsdp"] = [inputs + 5]
        expected["both"] = [outputs, outputs, inputs + 5, inputs + 5]  # two sums, over both dimensions of the mesh
        expected["two-dimensional"] = [6, 6, 10 + 40 + 2, 10 + 40 + 2]
    for rank in ranks:
        for case, carried in expected.items():
            assert rank[f"sums/{case}"].tolist() == carried, case


def test_the_frobenius_norm_is_of_the_whole_weight(ranks):
    """The norm of a DTensor taken to local is that of a part: 0.7 of it on two ranks."""
    for name, weight in worker.tensors().items():
        for case in ("fsdp", "columns"):
            found = ranks[0][f"{case}/1/cold/{name}/frobenius"]
            torch.testing.assert_close(float(found), float(weight.norm()), rtol=1e-6, atol=0)
