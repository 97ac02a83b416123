"""Objectives over real gloo processes, on uneven and heterogeneous shards, against all shards in one process."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("objective_rank.py")


def load_script():
    spec = importlib.util.spec_from_file_location("objective_rank", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the ranks of both worlds wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), "4", folder], stderr=subprocess.PIPE, text=True)
        for rank in range(4)
    ]
    errors = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(errors)
    return folder


@pytest.mark.parametrize("world", script.SHARDS)
def test_ranks_find_the_values_and_gradients_of_one_process(folder, world):
    ranks = [torch.load(folder / f"{rank}of{world}.pt", weights_only=True) for rank in range(world)]
    x, y = [torch.cat(views) for views in zip(*script.data(world), strict=True)]
    single = script.results(x, y, 1, len(x))
    for key, expected in single.items():
        assert max(value.abs().max() for value in expected) > 1e-3, key
        for rank in ranks:
            for actual, wanted in zip(rank[key], expected, strict=True):
                assert (actual - wanted).abs().max() <= 1e-12 * max(float(wanted.abs().max()), 1), key
    for rank in ranks:
        assert [int(count) for count in rank["collectives"]] == [1, 1]


def test_the_test_can_tell_shards_apart():
    """A rank's own objective has another gradient, and the robust cases another than the plain ones."""
    x, y = [torch.cat(views) for views in zip(*script.data(2), strict=True)]
    whole, trimmed = [script.run(script.CASES[name], x, y, False, 1)[-2] for name in ("vicreg", "trimmed")]
    own = script.run(script.CASES["vicreg"], *script.data(2)[0], False, 1)[-2]
    assert (own - whole).norm() > 0.05 * whole.norm()
    assert (trimmed - whole).norm() > 0.05 * whole.norm()
