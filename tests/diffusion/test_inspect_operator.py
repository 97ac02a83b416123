"""A whole inspection: of a run's folder, of a diffusers folder, of models that are known, and of what is wrong."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from safetensors.torch import save_file

from lsdr import runs
from lsdr.data.load import load_images
from lsdr.diffusion import operator_source
from lsdr.diffusion.inspect_operator import KINDS, inspect_operator

QUICK = {"images": 2, "levels": 2, "k": 2, "samples": 8}
LEVEL = {
    "sigma", "sigma_next", "eigenvalues", "residual", "gains", "singular_values", "time_scales", "asymmetry",
    "smallest", "trace", "trace_error", "mse", "sure", "gaussian", "density",
}  # fmt: skip


def small_unet(**changes):
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **changes,
    )  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    """The folder of a run with random weights."""

    def make(where="run", **changes):
        folder, network = tmp_path / where, tmp_path / f"{where}-network"
        config = {
            "data": "digits", "limit": 200, "model": str(network), "denoiser": "edm", "prediction": "epsilon",
            "holdout": 0.1, "training": {"unknown to us": 1}, "measure": {"sampler_steps": 3}, **changes,
        }  # fmt: skip
        runs.write_json(folder / "config.json", {"method": "baseline", **config})
        torch.manual_seed(3)
        model = small_unet(num_class_embeds=10 if changes.get("conditional") else None)
        model.save_pretrained(network)
        final = folder / "snapshots" / "final"
        final.mkdir(parents=True)
        save_file(model.state_dict(), final / "ema.safetensors")
        return folder

    return make


@pytest.fixture
def known(monkeypatch, wiener, tmp_path):
    """A diffusers folder whose network is the best linear denoiser of the digits."""

    def make(prediction, scheduler):
        digits = load_images("digits").__getitems__(range(1797))["image"].float() / 127.5 - 1
        monkeypatch.setattr(operator_source, "load_model", lambda folder: (wiener(digits, prediction), scheduler))
        return tmp_path

    return make


def test_a_run_is_inspected_from_its_folder_alone(run_folder):
    said = []
    folders = [run_folder(name) for name in ("run", "again", "other")]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = inspect_operator(folders[0], progress=lambda *words: said.append(words), **QUICK)
    assert torch.equal(before, torch.get_rng_state())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {"source", "model", "prediction", "shape", "images", "frame", "estimator", "why"} < set(found)
    assert (found["prediction"], found["shape"], found["images"]) == ("edm", [1, 8, 8], 2)
    assert [set(level) for level in found["levels"]] == [LEVEL, LEVEL]
    sigmas = [(level["sigma"], level["sigma_next"]) for level in found["levels"]]
    assert sigmas[0][0] == pytest.approx(80)
    assert 0.002 < sigmas[0][1] < 80
    assert sigmas[1] == (pytest.approx(0.002), 0)
    assert all(len(level["eigenvalues"]["median"]) == 2 for level in found["levels"])
    assert found["lyapunov"]["steps"] == 3
    assert len(found["lyapunov"]["exponents"]) == 4
    assert {len(column) for column in found["power_spectrum"].values()} == {4}
    assert "untrained" in {each["kind"] for each in found["findings"]}
    assert {each["kind"] for each in found["findings"]} <= set(KINDS)
    assert {len(words) for words in said} == {4}
    assert inspect_operator(folders[1], **QUICK)["levels"] == found["levels"]
    assert inspect_operator(folders[2], seed=1, **QUICK)["levels"] != found["levels"]


def test_a_conditional_run_of_a_comparison_with_other_data_and_weights(run_folder, tmp_path):
    folder = run_folder(conditional=True)
    config = runs.read_json(folder / "config.json")
    config.pop("method")
    runs.write_json(folder / "job.json", {"config": config, "method": "baseline"})
    (folder / "config.json").unlink()
    runs.write_json(folder / "data.json", {"shape": [1, 8, 8], "classes": 10})
    found = inspect_operator(folder, ratio=0.5, frame="flow", **QUICK)
    assert found["levels"][0]["sigma_next"] == pytest.approx(0.5 * found["levels"][0]["sigma"])
    assert found["frame"] == "flow"
    images = np.random.default_rng(0).integers(0, 255, (20, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=images)
    with pytest.raises(ValueError, match="conditioned on 10 classes"):
        inspect_operator(folder, data=str(tmp_path / "plain.npz"), **QUICK)
    with pytest.raises(ValueError, match="holds no model"):
        inspect_operator(folder, weights="final", **QUICK)
    newer = folder / "checkpoints" / "step-00000002"
    newer.mkdir(parents=True)
    (folder / "snapshots" / "final" / "ema.safetensors").rename(newer / "model.safetensors")
    again = inspect_operator(folder, weights="final", ratio=0.5, frame="flow", **QUICK)
    assert again["levels"] == found["levels"]


def test_other_images_are_brought_to_the_models_shape(run_folder, tmp_path):
    folder = run_folder()
    runs.write_json(folder / "data.json", {"shape": [1, 8, 8], "classes": 10})
    images = np.random.default_rng(0).integers(0, 255, (20, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=images)
    found = inspect_operator(folder, data=str(tmp_path / "plain.npz"), **QUICK)
    assert found["shape"] == [1, 8, 8]


def test_the_best_linear_denoiser_of_the_digits(known):
    folder = known("v", DDPMScheduler(prediction_type="v_prediction"))
    found = inspect_operator(folder, data="digits", images=3, levels=3, k=3, samples=32)
    assert found["prediction"] == "v"
    for level in found["levels"]:
        assert level["eigenvalues"]["median"] == pytest.approx(level["gaussian"], rel=0.1, abs=1e-3)
        assert level["singular_values"] == pytest.approx(level["eigenvalues"]["median"], rel=0.02, abs=1e-3)
        assert level["asymmetry"] < 0.02
        assert level["mse"] == pytest.approx(level["sigma"] ** 2 * level["trace"], rel=0.25)
        assert level["smallest"] > -0.01
    assert not {"error", "warning"} & {each["severity"] for each in found["findings"]}


def test_a_network_of_another_prediction_is_an_error_that_says_which(known):
    folder = known("v", DDPMScheduler())
    with pytest.raises(ValueError, match=r"seems to predict v, not epsilon.*prediction='v'"):
        inspect_operator(folder, data="digits", **QUICK)
    assert inspect_operator(folder, data="digits", prediction="v", **QUICK)["prediction"] == "v"
    wrong = inspect_operator(folder, data="digits", prediction="sample", **QUICK)
    assert wrong["findings"][0]["severity"] == "error"
    assert wrong["findings"][0]["kind"] == "wrong_prediction"


@pytest.mark.parametrize("trained", ["edm", "flow", "epsilon"])
def test_without_a_scheduler_it_is_read_as_it_fits(known, trained):
    found = inspect_operator(known(trained, None), data="digits", **QUICK)
    assert found["prediction"] == trained
    assert "holds no scheduler" in found["findings"][-1]["message"]


def test_a_flow_scheduler_is_understood(known):
    folder = known("flow", FlowMatchEulerDiscreteScheduler())
    assert inspect_operator(folder, data="digits", **QUICK)["prediction"] == "flow"


def test_a_diffusers_pipeline_folder(tmp_path):
    torch.manual_seed(0)
    DDPMPipeline(unet=small_unet(), scheduler=DDPMScheduler(prediction_type="v_prediction")).save_pretrained(tmp_path)
    found = inspect_operator(tmp_path, data="digits", **QUICK)
    assert found["prediction"] == "v"
    assert found["model"].startswith("UNet2DModel, ")
    assert "untrained" in {each["kind"] for each in found["findings"]}
    with pytest.raises(ValueError, match="pass images, as data="):
        inspect_operator(tmp_path, **QUICK)


def test_an_untrained_network_without_a_scheduler_is_refused(tmp_path):
    torch.manual_seed(0)
    small_unet().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="read in no way"):
        inspect_operator(tmp_path, data="digits", **QUICK)


def test_latents_and_classes_that_are_missing_are_refused(tmp_path):
    UNet2DModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    ).save_pretrained(tmp_path / "latents")  # fmt: skip
    with pytest.raises(ValueError, match="takes 4 channels"):
        inspect_operator(tmp_path / "latents", data="digits", **QUICK)
    small_unet(num_class_embeds=7).save_pretrained(tmp_path / "classes")
    with pytest.raises(ValueError, match="conditioned on 7 classes, and digits has 10"):
        inspect_operator(tmp_path / "classes", data="digits", **QUICK)


def test_folders_that_are_no_model_are_refused(tmp_path, run_folder):
    with pytest.raises(ValueError, match="no folder"):
        inspect_operator(tmp_path / "nothing")
    runs.write_json(tmp_path / "experiment.json", {})
    (tmp_path / "baseline" / "seed=0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"comparison of several runs; name one of them, such as .*seed=0"):
        inspect_operator(tmp_path)
    folder = run_folder(data=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="was trained on cannot be read"):
        inspect_operator(folder)
    (folder / "snapshots" / "final" / "ema.safetensors").write_bytes(b"no")
    runs.write_json(folder / "data.json", {"shape": [1, 8, 8], "classes": 10})
    with pytest.raises(ValueError, match="are not those of"):
        inspect_operator(folder, data="digits", **QUICK)


def test_weights_that_are_not_finite_are_refused(run_folder):
    folder = run_folder()
    model = small_unet()
    torch.nn.init.constant_(model.conv_out.bias, torch.nan)
    save_file(model.state_dict(), folder / "snapshots" / "final" / "ema.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        inspect_operator(folder, **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "must be 1 or more"),
        ({"levels": 0}, "must be 1 or more"),
        ({"samples": -1}, "samples 0 or more"),
        ({"ratio": 1.0}, "ratio is"),
        ({"prediction": "x0"}, "expected one of epsilon"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        inspect_operator(tmp_path, **options)


def test_without_samples_there_is_nothing_of_samples(run_folder):
    found = inspect_operator(run_folder(), **{**QUICK, "samples": 0})
    assert (found["power_spectrum"], found["artifacts"]) == ({}, [])
