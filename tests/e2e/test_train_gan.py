"""`lsdr train gan` killed without warning and gone on with."""

import os
import signal
import subprocess
import sys
import time

from lsdr import runs

SMALL = ["--data", "ring", "--model", "mlp", "--examples", "400", "--batch-size", "16", "--steps", "60"]
SMALL += ["--checkpoint-every", "7", "--log-every", "1", "--evaluate-every", "30", "--sample-every", "0"]
SMALL += ["--samples", "40", "--noise-strength", "None", "--noise-images", "200", "--noise-target", "-0.9"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(out):
    words = ["train", "gan", *SMALL, "--trackers", "--method", "standardization", "--out", str(out), "--resume"]
    return [sys.executable, "-m", "lsdr", *words]


def finish(out):
    done = subprocess.run(command(out), capture_output=True, text=True, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 0, done.stderr


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bytes(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    finish(whole)
    kills = 0
    for at_step in (12, 38):
        process = subprocess.Popen(command(out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            records = runs.read_records(out / "metrics.jsonl") if out.exists() else []
            if records and records[-1]["step"] >= at_step:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    assert kills >= 1
    finish(out)
    names = sorted(path.name for path in whole.glob("*.safetensors"))
    assert len(names) >= 1
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
