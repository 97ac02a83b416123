"""The GPU's kernels: in Triton's interpreter on any machine, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from lsdr.linalg import triton_gram
from lsdr.linalg.tracking import Tracker

SCRIPT = Path(__file__).with_name("triton_worker.py")


def run(*arguments, **environment):
    """In a process of its own: Triton reads its switch at import, and its interpreter patches the language."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_in_the_interpreter():
    run(TRITON_INTERPRET="1")


def test_without_the_interpreter_a_cpu_never_imports_triton():
    code = (
        "import sys, torch; from lsdr.linalg.tracking import Tracker; "
        "Tracker({'layer': torch.ones(3, 4)}).update(); assert 'triton' not in sys.modules"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def test_what_the_kernels_do_not_take():
    assert triton_gram.suitable(torch.ones(3, 4)[:, 1:])
    for other in (torch.ones(3, 4).mT, torch.ones(3, 4).double(), torch.ones(0, 4), torch.ones(2, 3, 4)):
        assert not triton_gram.suitable(other)
    assert not triton_gram.available(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    def test_kernels(self):
        run("cuda")

    def test_a_graph_follows_the_weights(self):
        weights = {str(n): torch.randn(n, 2 * n, device="cuda") for n in (33, 64, 130)}
        tracker = Tracker(weights)
        tracker.update()
        for _ in range(3):
            for weight in weights.values():
                weight.mul_(1.5)
            found = tracker.update()
            for name, weight in weights.items():
                exact = float(torch.linalg.svdvals(weight.cpu().double())[0])
                assert float(found[name].lower) <= exact <= float(found[name].upper)
                assert float(found[name].values) > 0.95 * exact
        assert tracker._graph is not None

    def test_one_synchronisation_an_update(self):
        tracker = Tracker({str(n): torch.randn(n, 2 * n, device="cuda") for n in (33, 64, 130)})
        for _ in range(2):
            tracker.update()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                tracker.update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert len([w for w in caught if "synchroniz" in str(w.message)]) == 1
