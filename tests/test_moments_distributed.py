"""Moments summed over real gloo processes against the same rows in one process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).with_name("moments_worker.py")


def load_worker():
    spec = importlib.util.spec_from_file_location("moments_worker", SCRIPT)
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
            [sys.executable, "-W", "error", str(SCRIPT), str(rank), str(world), str(folder)],
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
    return [json.loads((folder / f"rank={rank}.json").read_text()) for rank in range(world)]


def assert_same(found, model, penalty, moments):
    """Every rank must have found the one process's penalty, moments and parameter gradients."""
    penalty.backward()
    for result in found:
        np.testing.assert_allclose(result["value"], penalty.item(), rtol=1e-12)
        for gradient, expected in zip(result["gradients"], worker.gradients(model), strict=True):
            np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
        assert result["count"] == moments.count
        np.testing.assert_allclose(result["mean"], moments.mean.tolist(), rtol=1e-12)
        np.testing.assert_allclose(result["covariance"], moments.covariance().tolist(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", worker.CASES)
def test_gradients_after_ddp_equal_one_process(ranks, name):
    world = len(ranks)
    positions, case = worker.CASES[name]
    model = worker.make_model()
    penalty, moments = case(model, [worker.shard(rank, world, positions) for rank in range(world)])
    assert_same([rank[name] for rank in ranks], model, penalty, moments)


def test_these_shards_tell_global_moments_from_rank_local_ones():
    """The shards are so different that averaging rank-local penalties is far off: the test above can fail."""
    model = worker.make_model()
    shards = [worker.shard(rank, 4) for rank in range(4)]
    together, _ = worker.one_view(model, shards)
    apart = sum(worker.one_view(model, [rows])[0] for rows in shards) / 4
    assert abs(apart - together) > 0.2 * together


def test_a_rank_without_rows(ranks):
    world = len(ranks)
    model = worker.make_model()
    penalty, moments = worker.one_view(model, [worker.shard(rank, world) for rank in range(world - 1)])
    assert_same([rank["empty_rank"] for rank in ranks], model, penalty, moments)


def test_a_rank_whose_rows_are_detached(ranks):
    world = len(ranks)
    model = worker.make_model()
    live = model(torch.cat([worker.shard(rank, world) for rank in range(world - 1)]))
    moments = worker.Moments.of(torch.cat([live, model(worker.shard(world - 1, world)).detach()]))
    penalty = worker.squared_off_diagonal(moments.covariance())
    assert_same([rank["detached_rank"] for rank in ranks], model, penalty, moments)


def test_no_digit_is_lost_far_from_the_origin(ranks):
    world = len(ranks)
    rows = torch.cat([1e4 + worker.shard(rank, world, dtype=torch.float32) for rank in range(world)]).double().numpy()
    expected = np.cov(rows.T, bias=True)
    for rank in ranks:
        assert np.abs(rank["far_from_origin"]["covariance"] - expected).max() < 2e-6 * expected.max()
        np.testing.assert_allclose(rank["far_from_origin"]["mean"], rows.mean(0), rtol=2e-7)


def test_a_subgroup_sums_over_itself(ranks):
    rows = torch.cat([worker.shard(rank, len(ranks)) for rank in range(2)]).numpy()
    for rank in ranks[:2]:
        assert rank["subgroup"]["count"] == len(rows)
        np.testing.assert_allclose(rank["subgroup"]["covariance"], np.cov(rows.T, bias=True), rtol=1e-12)


def test_what_cannot_be_reduced_is_refused(ranks):
    for rank in ranks:
        assert "saw no chunk" in rank["never_saw_a_chunk"]
        assert "NumPy" in rank["numpy"]
