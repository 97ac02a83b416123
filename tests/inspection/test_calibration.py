"""The benchmark that measures the rates: what it counts and what it writes."""

import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsdr.inspection.calibration import calibration
from lsdr.inspection.findings.find import KINDS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("findings_calibration", BENCHMARKS / "findings_calibration.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["findings_calibration"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("findings_calibration", None)
        sys.modules.pop("clean_networks", None)


def test_upper_bounds_are_exact(benchmark):
    assert benchmark.upper_bound(0, 100) == pytest.approx(1 - 0.05**0.01)
    bound = benchmark.upper_bound(2, 50)
    below = sum(math.comb(50, k) * bound**k * (1 - bound) ** (50 - k) for k in range(3))
    assert below == pytest.approx(0.05)
    assert benchmark.upper_bound(5, 5) == benchmark.upper_bound(0, 0) == 1


def seen(*findings, layers=2, **row):
    return SimpleNamespace(
        findings=[SimpleNamespace(kind=k, layer=layer) for k, layer in findings], layers=[row] * layers
    )


def test_alarms_are_counted_by_model_and_by_layer(benchmark):
    looks = [
        ("trained a", seen(("dead_directions", "x"), ("dead_directions", "y"), layers=5)),
        ("initialised b", seen(layers=3)),
        ("averaged a", seen(("ema_divergence", "x"), ema={"relative": 2.0})),
        ("fine-tuned a", seen(delta={"top": 3})),
        ("LoRA of a", seen(("lora_scale", "x"), adapter={"rank": 4})),
    ]
    found = benchmark.tally(looks)
    dead = found["dead_directions"]
    assert (dead.models, dead.model_alarms, dead.layers, dead.layer_alarms) == (2, 1, 8, 2)
    assert (dead.trained_models, dead.trained_alarms) == (1, 1)
    assert (found["ema_divergence"].models, found["ema_divergence"].layers) == (1, 2)
    assert (found["lora_scale"].model_alarms, found["intruder_dimensions"].models) == (1, 1)
    assert found["qk_logit_scale"].models == 0


def test_what_is_written_is_what_is_committed(benchmark):
    summary = benchmark.summary(
        benchmark.tally([("trained a", seen())]), {"fault": ("nonfinite", 3, 4)}, {"trained a": 1}
    )
    committed = calibration()
    assert summary.keys() == committed.keys()
    assert summary["findings"].keys() == committed["findings"].keys() == set(KINDS)
    for kind in KINDS:
        assert summary["findings"][kind].keys() == committed["findings"][kind].keys()
    assert summary["detection"]["fault"] == {"finding": "nonfinite", "found": 3, "planted": 4, "rate": 0.75}
    assert {each["finding"] for each in committed["detection"].values()} <= set(KINDS)
    assert set(benchmark.FAULTS) == set(committed["detection"])
