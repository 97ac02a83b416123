"""The Ray engine runs the same thing as the local one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lsdr.runs import read_json, read_records

pytest.importorskip("ray")

PROGRAM = """
import sys
from pathlib import Path
from fake_worker import FakeConfig, TASK
from lsdr.experiments.compare import compare

config = FakeConfig(fail={"clip": sys.argv[3]} if len(sys.argv) > 3 else {})
compare(config, ["baseline", "clip"], [0, 1], Path(sys.argv[1]), task=TASK, jobs=2, engine=sys.argv[2])
"""


@pytest.fixture
def carry_out(monkeypatch):
    # In a process of its own, because Ray leaves warnings and threads behind in the one that used it.
    helpers = str(Path(__file__).parents[1] / "experiments")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [helpers, os.environ.get("PYTHONPATH")])))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return lambda *arguments: subprocess.run([sys.executable, "-c", PROGRAM, *map(str, arguments)], check=True)


@pytest.mark.timeout(300)
def test_same_files_as_local(carry_out, tmp_path):
    carry_out(tmp_path / "local", "local", "kill")
    carry_out(tmp_path / "ray", "ray", "kill")
    files = {
        engine: {
            path.relative_to(tmp_path / engine): path.read_bytes()
            for path in sorted((tmp_path / engine).rglob("*"))
            if path.name in ("summary.json", "measures.json", "metrics.jsonl", "status.json", "checkpoint.json")
        }
        for engine in ("local", "ray")
    }
    assert len(files["local"]) == 1 + 4 * 4 - 2  # the killed ones have no measures
    assert files["ray"] == files["local"]
    status = read_json(tmp_path / "ray" / "clip" / "seed=0" / "status.json")
    assert "SIGKILL" in status["message"]
    local, ray = (read_records(tmp_path / engine / "baseline" / "seed=0" / "starts.jsonl") for engine in files)
    assert local[0]["threads"] == ray[0]["threads"]


def test_no_other_machine_can_reach_it(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    program = """
from lsdr.experiments.engines.ray import on_ray
with on_ray(jobs=1, threads=1):
    import ray
    print([node["NodeManagerAddress"] for node in ray.nodes()])
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "['127.0.0.1']"


def test_missing_ray_says_what_to_install(monkeypatch, tmp_path):
    from lsdr.experiments.engines.ray import on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install lsdr\[ray\]"), on_ray(jobs=1, threads=1):
        pass
