"""Whole runs, tiny ones, in every combination that the options offer."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, UNet2DModel

from lsdr import runs
from lsdr.diffusion.build import build_task, load_data
from lsdr.diffusion.config import DiffusionConfig
from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.diffusion.measures.config import MeasureConfig
from lsdr.diffusion.run import run
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.training.config import TrainingConfig

TINY = MeasureConfig(
    samples=4,
    sampler_steps=2,
    heldout_images=6,
    train_images=24,
    sensitivity_images=1,
    lyapunov_images=1,
    lyapunov_directions=1,
    lyapunov_iterations=1,
    operator_images=1,
    operator_levels=1,
    extractor_steps=2,
)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def config(training=None, **options):
    settings = {"steps": 3, "batch_size": 4, "warmup": 1, "trackers": (), "log_every": 1, **(training or {})}
    return DiffusionConfig(
        **{"data": "digits", "limit": 120, "training": TrainingConfig(**settings), "measure": TINY, **options}
    )


def small_unet():
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"denoiser": "ddpm", "prediction": "v", "zero_terminal_snr": True, "weighting": "min_snr"},
        {"denoiser": "ddpm", "prediction": "epsilon"},
        {"denoiser": "flow"},
        {"model": "dit-tiny", "conditional": True},
        {"conditional": True, "flip": True, "channels": 3},
        {"training": {"precision": "bf16", "accumulate": 2}},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_every_kind_of_run_ends_with_finite_measures(tmp_path, options):
    outcome = run(config(**options), (), tmp_path)
    assert outcome.status == "finished"
    measures = runs.read_json(tmp_path / "measures.json")
    for name, value in measures.items():
        assert name in MEASURES
        assert value is not None, name
    assert measures["heldout_loss"] > 0


def test_a_diffusers_folder_is_where_training_can_start(tmp_path):
    model = small_unet()
    model.save_pretrained(tmp_path / "model")
    outcome = run(config(model=str(tmp_path / "model"), training={"lr": 1e-12}), (), tmp_path / "run")
    assert outcome.status == "finished"
    trained = UNet2DModel.from_pretrained(tmp_path / "run" / "diffusers", local_files_only=True)
    torch.testing.assert_close(trained.conv_in.weight, model.conv_in.weight)


def test_a_pipelines_scheduler_decides_the_denoiser(tmp_path):
    from diffusers import DDPMPipeline

    model = small_unet()
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(tmp_path / "pipeline")
    settings = config(model=str(tmp_path / "pipeline"))
    task = build_task(settings, load_data(settings), torch.device("cpu"))
    denoiser = task.denoiser(task.model)
    assert denoiser.prediction == "v"
    torch.testing.assert_close(denoiser.alphas_cumprod, scheduler.alphas_cumprod)
    sigma = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(task.weight(denoiser, sigma), (1 + sigma**2) / sigma**2)


def test_the_learning_rate_grid_finds_where_training_breaks(tmp_path):
    options = {"lr_grid_steps": 12, "lr_grid": (1.0, 1e5)}
    outcome = run(config(training={"batch_size": 8}, **options), (), tmp_path)
    assert outcome.status == "finished"
    grid = runs.read_json(tmp_path / "curves.json")["lr_grid"]
    assert grid["diverged"] == [False, True]
    assert runs.read_json(tmp_path / "measures.json")["largest_stable_lr"] == pytest.approx(1e-3)


def test_a_diverged_run_has_a_result(tmp_path):
    outcome = run(config(training={"lr": 1e30, "steps": 8}), (), tmp_path)
    assert outcome.status == "diverged"
    status = runs.read_json(tmp_path / "status.json")
    assert status["status"] == "diverged"
    assert "overflowed float32" in status["message"]
    measures = runs.read_json(tmp_path / "measures.json")
    assert measures["diverged"] == 1
    assert "heldout_loss" not in measures
    (event,) = runs.read_records(tmp_path / "events.jsonl")
    assert event["module"]
    assert len(event["batch"]) == 4


def test_a_crash_is_recorded_and_raised(tmp_path):
    class Broken:
        def attach(self, model):
            raise RuntimeError("broken on purpose")

        def project_(self, model):
            pass

    with pytest.raises(RuntimeError, match="on purpose"):
        run(config(), (Broken(),), tmp_path)
    status = runs.read_json(tmp_path / "status.json")
    assert (status["status"], status["message"]) == ("crashed", "RuntimeError: broken on purpose")
    assert "Traceback" in (tmp_path / "crash.txt").read_text()


def test_paired_runs_share_weights_order_and_noise(tmp_path):
    for name, regularizers in {"plain": (), "other": (SpectralDecorrelation(layers="mid_block", weight=1.0),)}.items():
        AcceleratorState._reset_state(reset_partial_state=True)
        run(config(), regularizers, tmp_path / name)
    first = [runs.read_records(tmp_path / name / "metrics.jsonl")[0] for name in ("plain", "other")]
    assert first[0]["loss"] == first[1]["loss"]
    last = [runs.read_records(tmp_path / name / "metrics.jsonl")[-1] for name in ("plain", "other")]
    assert last[0]["loss"] != last[1]["loss"]


def test_bad_images_are_named_in_the_runs_data(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:40])
    outcome = run(config(data=str(folder), limit=None, training={"steps": 10}), (), tmp_path / "run")
    assert outcome.status == "finished"
    problems = runs.read_json(tmp_path / "run" / "data.json")["problems"]
    assert "07.png" in str(problems)


def test_too_few_images_are_refused_before_a_model_is_built(tmp_path):
    with pytest.raises(ValueError, match="at least 10"):
        run(config(limit=8), (), tmp_path)
