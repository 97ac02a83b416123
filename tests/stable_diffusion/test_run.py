"""Whole fine-tunes, tiny ones, through the command: every family, every option, and everything that goes wrong."""

import errno
import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lsdr import runs
from lsdr.cli.main import main
from lsdr.cli.train_stable_diffusion import on_latents
from lsdr.experiments.methods import resolve
from lsdr.stable_diffusion.build import adapt
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.training.config import TrainingConfig

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

SHORT = ["--steps", "2", "--batch-size", "2", "--warmup", "1", "--resolution", "64", "--trackers", "--log-every", "1"]
SHORT += ["--evaluate-every", "2", "--sample-every", "0", "--validation-steps", "1", "--monitor-every", "1"]
SHORT += ["--no-inspect", "--validation-prompts", "a flower", "--holdout", "0.2"]


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for family in tiny.FAMILIES:
        tiny.make(folder / family, family)
    tiny.photos(folder / "photos", 6, sizes=((96, 96), (96, 64)))
    tiny.photos(folder / "prior", 2, seed=1)
    return folder


@pytest.fixture
def train(inputs, capsys):
    """Run the command; its exit status and what it printed."""

    def command(out, *words, family="sd"):
        AcceleratorState._reset_state(reset_partial_state=True)
        where = ["--model", inputs / family, "--data", inputs / "photos", "--out", out, "--cache", inputs / "cache"]
        with pytest.raises(SystemExit) as ended:
            main([*map(str, ["train", "stable-diffusion", *SHORT, *where, *words])])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return command


@pytest.mark.parametrize(
    ("family", "tune"),
    [("sd2", "lora"), ("sdxl", "full"), ("sdxl", "lora"), ("sd3", "lora"), ("flux", "lora"), ("flux", "full")],
)
def test_every_family_is_trained_saved_and_read_back(train, tmp_path, family, tune):
    from diffusers import DiffusionPipeline

    # Under a LoRA the frozen base is stored in bfloat16 too.
    precision = "bf16" if tune == "lora" else "fp32"
    code, printed, error = train(tmp_path, "--tune", tune, "--precision", precision, family=family)
    assert code == 0, printed + error
    measures = runs.read_json(tmp_path / "measures.json")
    assert all(value is not None for value in measures.values())
    assert measures["heldout_loss"] > 0
    if tune == "full":
        pipe = DiffusionPipeline.from_pretrained(tmp_path / "pipeline", local_files_only=True)
        network = pipe.unet if family in ("sd2", "sdxl") else pipe.transformer
        averaged = load_file(tmp_path / "snapshots" / "final" / "ema.safetensors")
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, averaged[name], rtol=0, atol=0)
    else:
        state = load_file(tmp_path / "pytorch_lora_weights.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        assert any(tensor.any() for name, tensor in state.items() if "lora_B" in name)
    seen = {name.split("/")[0] for record in runs.read_records(tmp_path / "monitor.jsonl") for name in record}
    assert seen >= {"weights" if tune == "full" else "lora", "attention"}


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "discriminator", "--weighting", "min_snr", "--accumulate", "2"],
        ["--method", "discriminator_learned", "--no-buckets", "--flip", "--repeats", "2"],
        ["--method", "decomposition_eigenvalues", "--tune", "full", "--no-gradient-checkpointing"],
        ["--method", "operator_asymmetry"],
        ["--method", "spectral_normalization"],
        ["--method", "spectral_penalty", "--precision", "bf16", "--offset-noise", "0.1"],
        ["--method", "clip", "--max-norm", "0.01", "--max-norm-kind", "frobenius"],
        ["--prediction", "v", "--zero-terminal-snr", "--weighting", "min_snr"],
        ["--targets", "to_k", "--alpha", "4", "--rank", "2", "--lr-schedule", "cosine", "--ema", "0"],
        ["--holdout", "0", "--caption-dropout", "0.9", "--validation-guidance", "1"],
    ],
    ids=" ".join,
)
def test_every_method_and_option_trains(train, tmp_path, words):
    code, printed, error = train(tmp_path, *words)
    assert code == 0, printed + error
    measures = runs.read_json(tmp_path / "measures.json")
    assert measures["seen_loss" if "--holdout" in words else "heldout_loss"] > 0
    if "--max-norm" in words:
        state = load_file(tmp_path / "snapshots" / "final" / "model.safetensors")
        for name in (name for name in state if "lora_A" in name):
            change = state[name.replace("lora_A", "lora_B")] @ state[name]
            assert change.norm() <= 0.01 * (1 + 1e-4)


def test_prior_images_are_trained_with_their_weight(train, inputs, tmp_path):
    code, _, error = train(tmp_path, "--prior", inputs / "prior", "--prior-weight", "0.5")
    assert code == 0, error


def test_the_learning_rate_range_is_written_and_drawn(train, tmp_path):
    code, printed, error = train(tmp_path / "with", "--lr-range-steps", "10", "--lr", "1e-3")
    assert code == 0, error
    assert "learning rate: the loss" in printed
    found = runs.read_json(tmp_path / "with" / "lr_range.json")
    assert len(found["lr"]) == len(found["loss"]) == 10
    assert found["lr"][0] == pytest.approx(1e-5)
    assert "Learning-rate range test" in (tmp_path / "with" / "report.html").read_text()
    # It leaves no trace in the training.
    assert train(tmp_path / "without", "--lr", "1e-3")[0] == 0
    one, other = (tmp_path / name / "snapshots" / "final" / "model.safetensors" for name in ("with", "without"))
    assert one.read_bytes() == other.read_bytes()


def test_a_lora_says_what_it_was_trained_to_predict(train, tmp_path):
    code, _, error = train(
        tmp_path, "--prediction", "v", "--zero-terminal-snr", "--offset-noise", "0.05", "--sanity", "warn"
    )
    assert code == 0, error
    for name in ("pytorch_lora_weights.safetensors", "lora_kohya.safetensors"):
        with safe_open(tmp_path / name, "pt") as file:
            told = file.metadata()
        assert told["modelspec.prediction_type"] == "v"
        assert told["ss_v_parameterization"] == told["ss_zero_terminal_snr"] == "True"
        assert told["ss_noise_offset"] == "0.05"


def test_without_held_out_pictures_there_is_a_warning_and_the_base_is_measured_all_the_same(train, tmp_path):
    code, printed, error = train(tmp_path, "--holdout", "0")
    assert code == 0, error
    assert "WARNING data: held out: no picture is held out" in printed
    measures = runs.read_json(tmp_path / "measures.json")
    assert {f"{base}seen_loss{noise}" for base in ("", "base_") for noise in ("", "_low_noise")} <= measures.keys()
    assert "Each layer's is that of what the LoRA adds" in (tmp_path / "report.html").read_text().replace("&#39;", "'")


class Interrupted(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_broken_off_and_resumed_it_ends_with_the_same_weights(train, tmp_path, monkeypatch, capsys, tune):
    words = ["--tune", tune, "--steps", "6", "--checkpoint-every", "2", "--lr", "1e-3", "--method", "decorrelation"]
    words += ["--single-file"] if tune == "full" else []
    assert train(tmp_path / "whole", *words)[0] == 0
    losses, calls = StableDiffusionTask.losses, []

    def losing(self, model, batch):
        calls.append(1)
        if len(calls) == 6:
            raise Interrupted
        return losses(self, model, batch)

    monkeypatch.setattr(StableDiffusionTask, "losses", losing)
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", *words)
    monkeypatch.setattr(StableDiffusionTask, "losses", losses)
    assert not (tmp_path / "broken" / "snapshots").exists()
    capsys.readouterr()
    code, printed, error = train(tmp_path / "broken", *words, "--resume")
    assert code == 0, error
    assert "latents" not in printed  # the checks were before the first step
    for name in ("model", "ema"):
        path = f"snapshots/final/{name}.safetensors"
        assert (tmp_path / "broken" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_out_of_memory_is_advice_and_a_checkpoint(train, tmp_path, monkeypatch):
    losses, calls = StableDiffusionTask.losses, []

    def hungry(self, model, batch):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return losses(self, model, batch)

    words = ["--steps", "5", "--checkpoint-every", "5"]
    monkeypatch.setattr(StableDiffusionTask, "losses", hungry)
    code, printed, _ = train(tmp_path, *words)
    assert code == 1
    for advice in ("accumulate", "resolution", "gradient checkpointing", "bf16", "--resume"):
        assert advice in printed, advice
    assert runs.read_json(tmp_path / "status.json")["status"] == "out_of_memory"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    monkeypatch.setattr(StableDiffusionTask, "losses", losses)
    assert train(tmp_path, *words, "--resume", "--accumulate", "2")[0] == 0


def test_memory_used_up_before_the_first_step_is_advice_too(train, tmp_path, monkeypatch):
    from lsdr.stable_diffusion import run

    def hungry(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(run, "encode", hungry)
    code, printed, _ = train(tmp_path)
    assert code == 1
    assert "resolution" in printed
    assert runs.read_json(tmp_path / "status.json")["status"] == "out_of_memory"


def test_a_full_disk_is_told_and_what_was_saved_stays(train, tmp_path, monkeypatch):
    from lsdr.training import checkpoint

    save, calls = checkpoint.save_tensors, []

    def full(path, tensors):
        calls.append(path)
        if "step-00000004" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(path, tensors)

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    words = ["--steps", "6", "--checkpoint-every", "2"]
    code, printed, _ = train(tmp_path, *words)
    assert code == 1
    assert "disk is full" in printed
    assert str(tmp_path) in printed
    assert runs.read_json(tmp_path / "status.json")["status"] == "disk_full"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.setattr(checkpoint, "save_tensors", save)
    assert train(tmp_path, *words, "--resume")[0] == 0


def test_a_full_disk_of_the_cache_is_told(train, tmp_path, monkeypatch):
    from lsdr.stable_diffusion import encoded

    def full(cache, *args):
        raise OSError(errno.ENOSPC, "the disk of the cache is full", str(cache))

    monkeypatch.setattr(encoded, "write_part", full)
    code, printed, _ = train(tmp_path / "run", "--cache", tmp_path / "cache")
    assert code == 1
    assert str(tmp_path / "cache") in printed
    assert runs.read_json(tmp_path / "run" / "status.json")["status"] == "disk_full"


def test_a_run_that_diverges_ends_with_an_event_and_a_status(train, tmp_path):
    code, printed, _ = train(tmp_path, "--lr", "1e30", "--steps", "6", "--tune", "full", "--clip", "0")
    assert code == 1
    assert "diverged" in printed
    assert runs.read_json(tmp_path / "measures.json")["diverged"] == 1
    assert runs.read_records(tmp_path / "events.jsonl")


def set_config(part, **entries):
    def change(folder):
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def scale_queries(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"] *= 1e7
    save_file(weights, path, metadata={"format": "pt"})


def broken(inputs, folder, change):
    """A copy of the pipeline with something wrong in it."""
    shutil.copytree(inputs / "sd", folder)
    change(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_config("vae", scaling_factor=1.0), "scale factor"),
        (lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "vae"),
        (lambda folder: os.truncate(folder / "unet" / "diffusion_pytorch_model.safetensors", 5000), "unet"),
        (lambda folder: shutil.rmtree(folder / "text_encoder"), "text_encoder"),
    ],
    ids=["wrong VAE scale", "no VAE weights", "cut file", "no text encoder"],
)
def test_a_wrong_pipeline_is_refused_in_words(train, inputs, tmp_path, change, expected):
    folder = broken(inputs, tmp_path / "pipeline", change)
    code, printed, error = train(tmp_path / "run", "--model", folder)
    assert code == 2, printed + error
    assert expected in error


def test_a_refused_run_leaves_the_folder_free_and_can_be_made_to_go_on(train, inputs, tmp_path):
    folder, out = broken(inputs, tmp_path / "pipeline", set_config("vae", scaling_factor=1.0)), tmp_path / "run"
    assert train(out, "--model", folder)[0] == 2
    assert runs.read_json(out / "status.json")["status"] == "refused"
    assert any(check["verdict"] == "refused" for check in runs.read_json(out / "sanity.json"))
    code, printed, error = train(out, "--model", folder, "--sanity", "warn")
    assert code == 0, error
    assert "REFUSED latents" in printed


def test_attention_beyond_float16_is_named_before_the_first_step(train, inputs, tmp_path):
    folder = broken(inputs, tmp_path / "pipeline", scale_queries)
    _, printed, error = train(tmp_path / "run", "--model", folder)
    assert "WARNING attention" in printed, error
    assert "mid_block.attentions.0.transformer_blocks.0.attn1" in printed
    assert "bf16" in printed


def test_bad_images_and_missing_captions_are_left_out_and_named_or_refused(train, tmp_path):
    data = tiny.photos(tmp_path / "photos", 12)
    (data / "003.png").write_bytes((data / "003.png").read_bytes()[:60])
    (data / "004.txt").unlink()
    (data / "005.txt").write_text("  \n")
    code, printed, error = train(tmp_path / "run", "--data", data)
    assert code == 0, error
    for name in ("003.png", "004.png", "005.png"):
        assert printed.count(name) == 2, name  # before the first step, and at the end
    assert runs.read_json(tmp_path / "run" / "data.json")["heldout"] == 2
    code, _, error = train(tmp_path / "other", "--data", data, "--on-bad", "refuse")
    assert code == 2
    assert "003.png" in error
    for path in data.glob("*.txt"):
        path.unlink()
    code, _, error = train(tmp_path / "third", "--data", data)
    assert code == 2
    assert "caption" in error


def test_images_are_counted_once_and_long_captions_are_not_said_to_be_left_out(train, tmp_path):
    data = tiny.photos(tmp_path / "photos", 12)
    (data / "003.png").write_bytes((data / "003.png").read_bytes()[:60])
    (data / "004.txt").write_text("flower " * 200)
    prior = tiny.photos(tmp_path / "prior", 2, seed=1)
    code, printed, error = train(
        tmp_path / "run", "--data", data, "--repeats", "3", "--flip", "--prior", prior, "--sanity", "warn"
    )
    assert code == 0, error
    assert "1 left out as damaged (003.png); 13 images remain" in printed
    assert "1 used as long caption (004.png)" in printed
    assert "left out of the data: 1 x damaged" in printed
    assert "used, not as it is: 1 x long_caption (004.png)" in printed
    page = (tmp_path / "run" / "report.html").read_text()
    for kind, done, name in (("damaged", "left out", "003.png"), ("long caption", "used all the same", "004.png")):
        assert re.search(f'{kind}</th><td class="n">1</td><td>{done}</td><td class="text">{name}', page), kind
    found = runs.read_json(tmp_path / "run" / "data.json")
    assert (found["count"], found["heldout"]) == (11, 2)  # of 11 images and 2 prior ones


def test_a_run_is_not_resumed_on_other_images_or_captions(train, tmp_path):
    data = tiny.photos(tmp_path / "photos", 6)
    assert train(tmp_path / "run", "--data", data)[0] == 0
    (data / "001.txt").write_text("another caption")
    known = (tmp_path / "run" / "data.json").read_bytes()
    for _ in range(2):  # the first refusal leaves what the second compares with
        code, _, error = train(tmp_path / "run", "--data", data, "--resume", "--steps", "3")
        assert code == 2
        assert "not those that this run began with" in error
        assert (tmp_path / "run" / "data.json").read_bytes() == known
    tiny.photos(data, 6)
    code, _, error = train(tmp_path / "run", "--data", data, "--resume", "--steps", "3")
    assert code == 0, error
    assert not (tmp_path / "run" / "crash.txt").exists()


def test_the_range_test_is_refused_to_several_processes(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    code, _, error = train(tmp_path, "--lr-range-steps", "10")
    assert code == 2
    assert "one process" in error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "no-such-folder"], "no-such-folder"),
        (["--model", "no-such-folder"], "no-such-folder"),
        (["--zero-terminal-snr"], "epsilon"),
        (["--tune", "full", "--max-norm", "1"], "max_norm"),
        (["--single-file"], "tune=full"),
        (["--targets", "no_such_layer"], "no_such_layer"),
        (["--method", "decorelation"], "decorrelation"),
        (["--holdout", "1.5"], "holdout"),
        (["--resolution", "8"], "resolution"),
        (["--resolution", "99999999"], "at most 16384"),
        (["--max-norm", "-1"], "max_norm"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_told_in_words(train, tmp_path, words, expected):
    code, printed, error = train(tmp_path, *words)
    assert code == 2, printed + error
    assert expected in error


def test_regularizers_that_tell_pixels_from_latents_are_told():
    (regularizer,) = on_latents(resolve("discriminator").build())
    assert regularizer.domain == "latents"
    plain = resolve("decorrelation").build()
    assert on_latents(plain) == plain


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_frozen_base_is_stored_as_it_is_computed_with_and_the_lora_in_float32(inputs, precision, expected):
    config = StableDiffusionConfig(
        model=inputs / "sd", data=str(inputs / "photos"), training=TrainingConfig(precision=precision)
    )
    network = load_pipeline(config.model).network
    adapt(config, network)
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in network.parameters()}
    assert kinds == {(True, torch.float32), (False, expected)}


def test_the_options_refuse_what_cannot_work():
    with pytest.raises(ValueError, match="share"):
        StableDiffusionConfig(model=Path("m"), data="d", caption_dropout=1.0)
    with pytest.raises(ValueError, match="at least 10"):
        StableDiffusionConfig(model=Path("m"), data="d", lr_range_steps=3)
