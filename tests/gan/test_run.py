"""Whole runs, tiny ones, in every combination that the options offer."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from lsdr import runs
from lsdr.gan.load_run import load_run
from lsdr.gan.measures.catalogue import MEASURES
from lsdr.gan.run import run

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("points")
    settings = small.config(discriminator_noise=True, noise_images=50, noise_target=-0.9)
    outcome = run(settings, (), folder)
    assert outcome.status == "finished"
    return folder


def test_a_run_leaves_what_is_needed_to_judge_and_to_use_it(points):
    measures = runs.read_json(points / "measures.json")
    assert measures.keys() <= MEASURES.keys()
    for name in ("modes", "reverse_kl_all", "precision", "heldout_gap", "modes_lowest", "high_quality_fall"):
        assert measures[name] is not None, name
    for name in ("generator_sigma_max", "discriminator_sigma_max", "step_seconds", "noise_strength"):
        assert measures[name] > 0, name
    assert measures["weight_sigma_max"] == max(measures["generator_sigma_max"], measures["discriminator_sigma_max"])
    data = runs.read_json(points / "data.json")
    assert (data["count"], data["heldout"], data["shape"], len(data["mixture"]["means"])) == (200, 20, [2], 8)
    saved = load_file(points / "samples.safetensors")
    assert saved["samples"].shape == saved["data"].shape == (40, 2)
    assert {"modes", "perfect", "interpolation", "logits"} <= runs.read_json(points / "curves.json").keys()
    for name in ("data.png", "samples/final.png"):
        with Image.open(points / name) as picture:
            assert picture.size == (480, 480)
    facts = runs.read_json(points / "generator.json")
    generator = load_file(points / "generator.safetensors")
    assert facts["parameters"]["generator"] == sum(tensor.numel() for tensor in generator.values())


def test_records_hold_the_game(points):
    metrics = runs.read_records(points / "metrics.jsonl")
    for record in metrics:
        for name in ("discriminator/loss", "generator/loss", "logits/real", "logits/fake", "r1", "r2", "noise/level"):
            assert record[name] is not None, name
        assert record["discriminator/grad_norm"] > 0
        assert record["generator/grad_norm"] > 0
    assert metrics[-1]["noise/level"] > metrics[0]["noise/level"] == 0
    evaluations = runs.read_records(points / "evaluations.jsonl")
    assert [record["step"] for record in evaluations] == [6, 12]
    assert evaluations[-1]["noise_strength"] > 0


def test_a_run_can_be_loaded_with_the_averaged_generator_and_the_discriminator_that_played(points):
    state = torch.random.get_rng_state()
    loaded = load_run(points)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.step == 12
    assert (loaded.config.training.betas, loaded.config.data) == ((0.0, 0.99), "ring")
    gan = loaded.task.gan
    assert not gan.training
    averaged, playing = (load_file(points / "snapshots" / "final" / f"{name}.safetensors") for name in ("ema", "model"))
    own = gan.state_dict()
    for name in own:
        right, wrong = (playing, averaged) if name.startswith("discriminator.") else (averaged, playing)
        assert torch.equal(own[name], right[name]), name
        if name.endswith("weight"):
            assert not torch.equal(own[name], wrong[name]), name
    measured = load_file(points / "samples.safetensors")["samples"]
    generator = torch.Generator().manual_seed(0)
    latents = [torch.randn((20, gan.latent_dim), generator=generator) for _ in range(2)]  # as many as in a batch
    with torch.no_grad():
        torch.testing.assert_close(gan.generate(torch.cat(latents)), measured)


def test_a_checkpoint_is_loaded_where_there_is_no_end_yet(points, tmp_path):
    for name in ("generator.json", "checkpoints/step-00000008"):
        source, target = points / name, tmp_path / name
        target.mkdir(parents=True) if source.is_dir() else target.write_bytes(source.read_bytes())
        for each in source.glob("*") if source.is_dir() else ():
            (target / each.name).write_bytes(each.read_bytes())
    assert load_run(tmp_path).step == 8
    for each in (tmp_path / "checkpoints" / "step-00000008").glob("*"):
        each.unlink()
    (tmp_path / "checkpoints" / "step-00000008").rmdir()
    with pytest.raises(ValueError, match="holds no weights yet"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="no run of `lsdr train gan`"):
        load_run(tmp_path / "checkpoints")


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "non_saturating", "r1": 0.0, "r2": 0.0, "model": "pacgan-toy", "packing": 2, "data": "grid"},
        {"loss": "hinge", "model": "residual-mlp", "normalization": "standardize", "consistency": 1.0},
        {"generator_noise": "data", "denoising_steps": 2, "normalization": "magnitude_preserving"},
        {"generator_noise": "latent", "mode_seeking": 1.0, "training": {"accumulate": 2}},
        {"data": "digits", "limit": 60, "flip": True, "discriminator_noise": True, "consistency": 1.0},
        {"data": "digits", "limit": 60, "generator_noise": "data", "training": {"precision": "bf16"}},
        {"data": "stacked-digits", "model": "dcgan", "discriminator_normalization": "standardize"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_every_kind_of_run_ends_with_measures(tmp_path, options):
    training = {"steps": 3, **options.pop("training", {})}
    outcome = run(small.config(training=training, **options), (), tmp_path)
    assert outcome.status == "finished"
    measures = runs.read_json(tmp_path / "measures.json")
    assert measures.keys() <= MEASURES.keys()
    unknown = {name for name, value in measures.items() if value is None}
    assert unknown <= {"reverse_kl", "overfitting"}
    assert ("fid" in measures) == (options.get("data", "ring") not in ("ring", "grid"))
    assert ("modes" in measures) == (options.get("data") != "digits")


def test_a_folder_of_colour_images_is_trained_on_to_the_end(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:40])
    settings = small.config(
        data=str(folder), discriminator_noise=True, training={"steps": 1, "batch_size": 4, "sample_every": 1}
    )
    assert run(settings, (), tmp_path / "run").status == "finished"
    data = runs.read_json(tmp_path / "run" / "data.json")
    assert data["shape"] == [3, 32, 32]
    assert "07.png" in str(data["problems"])
    assert (tmp_path / "run" / "samples" / "step-000001.png").exists()
    spectra = runs.read_records(tmp_path / "run" / "spectra.jsonl")
    features = next(record for record in reversed(spectra) if record["kind"] == "features")
    assert all(name.startswith("generator.") for name in features["layers"])
    assert runs.read_json(tmp_path / "run" / "measures.json")["feature_effective_rank"] > 0


def test_a_faster_method_is_measured_at_equal_time_too(tmp_path):
    assert run(small.config(), (), tmp_path, reference_seconds=1e-6).status == "finished"
    measures = runs.read_json(tmp_path / "measures.json")
    assert {"modes", "modes@equal_time"} <= measures.keys()
    assert "step_seconds@equal_time" not in measures


def test_a_diverged_run_has_a_result(tmp_path):
    outcome = run(small.config(training={"lr": 1e30, "guard": "stop"}), (), tmp_path)
    assert outcome.status == "diverged"
    measures = runs.read_json(tmp_path / "measures.json")
    assert measures["diverged"] == 1
    assert "modes" not in measures
    (event,) = [each for each in runs.read_records(tmp_path / "events.jsonl") if each["action"] == "stop"]
    assert event["module"].startswith(("discriminator", "generator", "loss"))


@pytest.mark.parametrize("found", [0.0, 1.0])
def test_what_was_lost_on_the_way_counts_and_so_does_an_end_without_a_good_sample(tmp_path, monkeypatch, found):
    def measured(*given, **options):
        return {"high_quality": 1 - found, "diverged": found}, {}, torch.zeros(5, 2)

    shares = iter([(0.0, 0.1), (5.0, 0.9), (4.0, 0.8), (8.0, 0.7)])

    def evaluated(task, model):
        return dict(zip(("modes", "high_quality"), next(shares), strict=True))

    monkeypatch.setattr("lsdr.gan.finish.measure_points", measured)
    monkeypatch.setattr("lsdr.gan.task.GanTask.evaluate", evaluated)
    assert run(small.config(training={"steps": 4, "evaluate_every": 1}), (), tmp_path).status == "finished"
    measures = runs.read_json(tmp_path / "measures.json")
    assert measures["diverged"] == found
    assert measures["modes_lowest"] == 4  # in the second half
    assert measures["high_quality_fall"] == pytest.approx(0.2)


def test_a_crash_is_recorded_and_raised(tmp_path):
    class Broken:
        def attach(self, model):
            raise RuntimeError("broken on purpose")

        def project_(self, model):
            pass

    with pytest.raises(RuntimeError, match="on purpose"):
        run(small.config(), (Broken(),), tmp_path)
    status = runs.read_json(tmp_path / "status.json")
    assert (status["status"], status["message"]) == ("crashed", "RuntimeError: broken on purpose")
    assert "Traceback" in (tmp_path / "crash.txt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": True}, "flip mirrors images, and ring are points"),
        ({"model": "dcgan"}, "dcgan"),
        ({"data": "digits", "limit": 12}, "measuring needs"),
        ({"size": 8}, "size=8 is for images, and ring is drawn"),
        ({"data": "stacked-digits", "limit": 9}, "limit=9 is for images"),
        ({"examples": 4}, "a batch of 8 is larger"),
        ({"data": "rings"}, "there is no rings"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_data_and_model_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(small.config(**options), (), tmp_path)


def test_what_works_against_the_theory_is_said(tmp_path):
    settings = small.config(lazy=4, training={"steps": 1})
    with pytest.warns(RuntimeWarning, match="lazy=4 with R2 or the relativistic loss"):
        run(settings, (), tmp_path)
