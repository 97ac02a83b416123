"""`lsdr train diffusion` as a user runs it: in a process, killed without warning, resumed, under accelerate launch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lsdr import runs

SMALL = ["--data", "digits", "--limit", "200", "--batch-size", "8", "--steps", "24", "--checkpoint-every", "5"]
SMALL += ["--log-every", "2", "--evaluate-every", "12", "--sample-every", "12"]
SMALL += ["--samples", "8", "--sampler-steps", "4", "--heldout-images", "8", "--train-images", "32"]
SMALL += ["--sensitivity-images", "2", "--lyapunov-images", "0", "--extractor-steps", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def lsdr(*words, **options):
    command = [sys.executable, "-m", "lsdr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=240, **options)


def train(out, *words):
    return lsdr("train", "diffusion", *SMALL, "--trackers", "--method", "decorrelation", "--out", out, *words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    result = train(out)
    assert result.returncode == 0, result.stderr
    return out


def test_a_run_leaves_everything_a_user_needs(whole):
    for name in (
        "model.safetensors",
        "diffusers/config.json",
        "diffusers/diffusion_pytorch_model.safetensors",
        "report.html",
        "measures.json",
        "curves.json",
        "samples/final.png",
        "samples/step-000012.png",
        "data.png",
        "config.json",
        "environment.json",
    ):
        assert (whole / name).stat().st_size > 0, name
    assert runs.read_json(whole / "status.json")["status"] == "finished"
    assert runs.read_json(whole / "measures.json")["heldout_loss"] > 0
    from diffusers import UNet2DModel

    model = UNet2DModel.from_pretrained(whole / "diffusers", local_files_only=True)
    assert model.config.sample_size == 8


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bytes(whole, tmp_path):
    out = tmp_path / "run"
    kills = 0
    for at_step in (3, 9, 16):
        words = ["train", "diffusion", *SMALL, "--trackers", "--method", "decorrelation", "--out", str(out), "--resume"]
        process = subprocess.Popen(
            [sys.executable, "-m", "lsdr", *words],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            records = runs.read_records(out / "metrics.jsonl") if out.exists() else []
            if records and records[-1]["step"] >= at_step:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    assert kills >= 2
    result = train(out, "--resume")
    assert result.returncode == 0, result.stderr
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    ema = "diffusers/diffusion_pytorch_model.safetensors"
    assert (out / ema).read_bytes() == (whole / ema).read_bytes()


def test_ctrl_c_saves_and_resume_goes_on(whole, tmp_path):
    out = tmp_path / "run"
    words = ["train", "diffusion", *SMALL, "--trackers", "--method", "decorrelation", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lsdr", *words], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    if process.returncode != 0:  # on a fast machine it may have been through already
        assert process.returncode == 130
        assert runs.read_json(out / "status.json")["status"] == "interrupted"
    result = train(out, "--resume")
    assert result.returncode == 0, result.stderr
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_two_ranks_give_the_statistics_of_one_process(whole, tmp_path):
    out = tmp_path / "ranks"
    # accelerate launch starts several processes on GPUs only; torchrun starts ranks that Accelerate finds on a CPU too.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lsdr"]
    words = ["train", "diffusion", *SMALL, "--method", "decorrelation", "--out", str(out)]
    result = subprocess.run([*launch, *words], capture_output=True, text=True, env=ENVIRONMENT, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    assert runs.read_json(out / "environment.json")["processes"] == 2
    assert runs.read_json(out / "status.json")["status"] == "finished"
    one, two = runs.read_records(whole / "metrics.jsonl"), runs.read_records(out / "metrics.jsonl")
    assert [record["step"] for record in one] == [record["step"] for record in two]
    key = next(name for name in one[0] if name.startswith("SpectralDecorrelation/"))
    for alone, ranks in zip(one, two, strict=True):
        # The same sums in another order, and then training amplifies the rounding.
        tolerance = 1e-4 if alone["step"] <= 4 else 2e-2
        for name in ("loss", "penalty", key):
            assert ranks[name] == pytest.approx(alone[name], rel=tolerance), (alone["step"], name)


def test_a_folder_is_never_shared_by_two_runs(whole):
    again = train(whole)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    fewer = train(whole, "--resume", "--steps", "10")
    assert fewer.returncode == 2
    assert "24 steps" in fewer.stderr
    assert runs.read_json(whole / "status.json")["status"] == "finished"  # a refusal changes nothing
    other = train(whole, "--resume", "--lr", "0.5")
    assert other.returncode == 2
    assert "lr" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "no-such-folder"], "no-such-folder"),
        (["--data", "digits", "--model", "unet-tinny"], "did you mean unet-tiny"),
        (["--data", "digits", "--precision", "fp16"], "bf16"),
        (["--data", "digits", "--batch-size", "100000"], "batch"),
        (["--data", "digits", "--method", "decorelation"], "decorrelation"),
        (["--data", "digits", "--denoiser", "ddpm", "--zero-terminal-snr"], "prediction"),
    ],
)
def test_wrong_use_is_a_sentence_and_not_a_traceback(tmp_path, words, expected):
    result = lsdr("train", "diffusion", "--steps", "1", "--out", tmp_path / "run", *words)
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    again = lsdr("train", "diffusion", *SMALL, "--trackers", "--steps", "1", "--out", tmp_path / "run")
    assert again.returncode == 0, again.stderr  # what failed before it began does not hold the folder


def test_a_finished_run_is_not_taken_again(whole):
    result = train(whole, "--resume")
    assert result.returncode == 0
    assert "finished already" in result.stdout


def test_the_report_can_be_made_again(whole):
    (whole / "report.html").unlink()
    result = lsdr("report", whole)
    assert result.returncode == 0, result.stderr
    assert (whole / "report.html").exists()
    assert json.loads((whole / "status.json").read_text())["status"] == "finished"
    assert str(Path(whole) / "report.html") in result.stdout.replace("\n", "")
