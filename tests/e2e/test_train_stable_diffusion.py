"""`lsdr train stable-diffusion` as a user runs it: in a process, killed without warning, resumed, given bad input."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsdr import runs
from lsdr.cli.main import main

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "stable_diffusion" / "tiny.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

STEPS = ["--steps", "16", "--batch-size", "4", "--warmup", "2", "--lr", "1e-3", "--resolution", "64", "--trackers"]
STEPS += ["--checkpoint-every", "3", "--log-every", "1", "--evaluate-every", "8", "--sample-every", "8"]
STEPS += ["--validation-steps", "2", "--monitor-every", "4"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
METHOD = ["--method", "decorrelation", "--max-norm", "0.5"]
LORA, KOHYA = "pytorch_lora_weights.safetensors", "lora_kohya.safetensors"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny.make(folder / "sd", "sd")
    tiny.photos(folder / "photos", 20)
    return folder


def words_of(inputs, out, *words):
    where = ["--model", inputs / "sd", "--data", inputs / "photos", "--out", out]
    return [*map(str, ["train", "stable-diffusion", *STEPS, *where, *words])]


def train(inputs, out, *words):
    command = [sys.executable, "-m", "lsdr", *words_of(inputs, out, *words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=280, check=False)


def kill_at(inputs, out, step, *words):
    """Start or resume a run and kill it, without warning, once it has recorded a step; whether it was killed."""
    command = [sys.executable, "-m", "lsdr", *words_of(inputs, out, "--resume", *words)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        records = runs.read_records(out / "metrics.jsonl") if out.exists() else []
        if records and records[-1]["step"] >= step:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    process.wait()
    return False


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "lora"
    result = train(inputs, out, *METHOD)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_a_run_says_what_it_found_and_leaves_everything_a_user_needs(whole):
    out, printed = whole
    for name in (LORA, KOHYA, "report.html", "inspection.html", "inspection.json", "sanity.json", "measures.json"):
        assert (out / name).stat().st_size > 0, name
    for name in ("step-000000.png", "step-000008.png", "final.png"):
        assert (out / "samples" / name).stat().st_size > 0, name
    for words in ("data: all 20 images", "latents: standard deviation", "network:", "attention: the largest logit"):
        assert words in printed, words
    assert str(out / KOHYA) in printed.replace("\n", "")
    measures = runs.read_json(out / "measures.json")
    assert measures["heldout_loss"] > 0
    assert measures["heldout_loss"] != measures["base_heldout_loss"]
    assert runs.read_json(out / "status.json")["status"] == "finished"
    seen = {name.split("/")[0] for record in runs.read_records(out / "monitor.jsonl") for name in record}
    assert seen >= {"lora", "attention", "monitor"}
    layers = runs.read_json(out / "inspection.json")["layers"]
    assert len(layers) == len(load_file(out / LORA)) / 2
    assert all(layer["adapter"]["sigma_over_base"] > 0 and layer["delta"] for layer in layers)
    assert max(layer["sigma_max"] for layer in layers) <= 0.5 * (1 + 1e-4)


def test_diffusers_draws_with_the_lora(whole, inputs):
    from diffusers import StableDiffusionPipeline

    out, _ = whole

    def draw(lora=None):
        pipe = StableDiffusionPipeline.from_pretrained(inputs / "sd", safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        if lora is not None:
            pipe.load_lora_weights(out, weight_name=lora)
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 2, "output_type": "latent", "height": 64, "width": 64}
        return pipe("a photo of a flower", generator=generator, **options).images

    base, ours, kohya = draw(), draw(LORA), draw(KOHYA)
    assert (ours - base).abs().max() > 1e-4
    torch.testing.assert_close(kohya, ours, rtol=1e-3, atol=1e-4)


def test_the_lora_is_inspected_by_the_command_that_users_are_told(whole, inputs, capsys):
    out, _ = whole
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(out / LORA), "--base", str(inputs / "sd"), "--json", "-"])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert all(layer["unknown"] == [] for layer in found["layers"])


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bytes(whole, inputs, tmp_path):
    reference, _ = whole
    out = tmp_path / "run"
    assert kill_at(inputs, out, 7, *METHOD)
    result = train(inputs, out, "--resume", *METHOD)
    assert result.returncode == 0, result.stderr
    for name in (LORA, KOHYA):  # the words in their headers are in any order
        once, again = load_file(reference / name), load_file(out / name)
        assert once.keys() == again.keys()
        assert all(torch.equal(once[key], again[key]) for key in once), name
    for name in ("snapshots/final/model.safetensors", "snapshots/final/ema.safetensors", "samples/final.png"):
        assert (out / name).read_bytes() == (reference / name).read_bytes(), name
    for name, value in runs.read_json(reference / "measures.json").items():
        if "loss" in name:
            assert runs.read_json(out / "measures.json")[name] == value


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "--resume"),
        (["--resume", "--rank", "8"], 2, "rank was 16, is 8"),
        (["--resume", "--validation-steps", "3"], 0, "finished already"),
    ],
)
def test_a_folder_is_never_shared_and_a_finished_run_is_not_taken_again(whole, inputs, capsys, words, code, said):
    with pytest.raises(SystemExit) as ended:
        main(words_of(inputs, whole[0], *METHOD, *words))
    printed = capsys.readouterr()
    assert ended.value.code == code, printed.err
    assert said in printed.out + printed.err
