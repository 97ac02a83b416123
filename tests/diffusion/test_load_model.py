"""Networks from a diffusers folder on disk: what is read, and what is refused."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DiTTransformer2DModel, UNet2DModel
from safetensors.torch import load_file, save_file

from lsdr.diffusion.call_model import call_model
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.load_model import load_model
from lsdr.diffusion.models import build_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    unet = build_model("unet-tiny", 3, 8)
    unet.save_pretrained(folder / "unet")
    DDPMPipeline(unet, DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)).save_pretrained(
        folder / "pipeline"
    )
    build_model("dit-tiny", 3, 8, classes=4).save_pretrained(folder / "dit")
    return folder


@pytest.fixture
def unet(saved, tmp_path):
    return shutil.copytree(saved / "unet", tmp_path / "unet")


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_model_folder(saved):
    state = torch.get_rng_state()
    model, scheduler = load_model(saved / "unet", channels=3, size=8)
    assert scheduler is None
    assert isinstance(model, UNet2DModel)
    assert model.training
    stored = load_file(saved / "unet" / WEIGHTS)
    assert stored.keys() == model.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())
    assert build_model(saved / "unet", 3, 8).conv_in.weight.equal(model.conv_in.weight)
    assert len(state) == len(torch.get_rng_state())


def test_pipeline_folder_with_its_scheduler(saved):
    model, scheduler = load_model(saved / "pipeline", channels=3, size=8)
    assert isinstance(scheduler, DDPMScheduler)
    denoiser = DDPMDenoiser.from_scheduler(model, scheduler)
    assert denoiser.prediction == "v"
    assert denoiser.alphas_cumprod[-1] == 0
    assert denoiser(torch.randn(1, 3, 8, 8), torch.tensor(denoiser.sigma_max)).isfinite().all()


def test_dit_folder(saved):
    model, _ = load_model(saved / "dit", channels=3, size=8, classes=4)
    assert isinstance(model, DiTTransformer2DModel)
    x, t, labels = torch.randn(64, 3, 8, 8), torch.rand(64), torch.arange(64) % 4
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert torch.equal(call_model(model, x, t, labels), call_model(model, x, t, labels))  # no label dropout


def test_the_published_dit_has_an_old_class_name(saved, tmp_path):
    folder = shutil.copytree(saved / "dit", tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text("{}")
    edit(folder / "config.json", _class_name="Transformer2DModel", norm_type="ada_norm_zero")
    assert isinstance(load_model(tmp_path)[0], DiTTransformer2DModel)


def test_half_precision_weights_are_trained_in_float32(unet):
    save_file({k: v.half() for k, v in load_file(unet / WEIGHTS).items()}, unet / WEIGHTS)
    model, _ = load_model(unet)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("folder", "data", "message"),
    [
        ("unet", {"channels": 1, "size": 8}, "takes 3 channels, the images have 1"),
        ("unet", {"channels": 3, "size": 16}, "is for size 8, the images have 16"),
        ("unet", {"channels": 3, "size": 8, "classes": 10}, "has no classes, the data 10"),
        ("dit", {"channels": 3, "size": 8, "classes": 10}, "has 4 classes, the data 10"),
        ("dit", {"channels": 3, "size": 8}, "has 4 classes, the data none"),
    ],
)
def test_networks_for_other_data_are_refused(saved, folder, data, message):
    with pytest.raises(ValueError, match=message):
        load_model(saved / folder, **data)


def test_a_size_that_the_strides_do_not_divide(unet):
    edit(unet / "config.json", sample_size=None)
    load_model(unet, channels=3, size=12)
    with pytest.raises(ValueError, match="multiple of 2, got 9"):
        load_model(unet, channels=3, size=9)


def test_channels_out_that_make_no_prediction(unet):
    edit(unet / "config.json", out_channels=4)
    weights = load_file(unet / WEIGHTS)
    weights["conv_out.weight"], weights["conv_out.bias"] = torch.zeros(4, 32, 3, 3), torch.zeros(4)
    save_file(weights, unet / WEIGHTS)
    with pytest.raises(ValueError, match="returns 4 channels for 3"):
        load_model(unet, channels=3, size=8)


def _truncate(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def _drop_one(folder):
    weights = load_file(folder / WEIGHTS)
    del weights["conv_in.weight"]
    save_file(weights, folder / WEIGHTS)


def _add_one(folder):
    save_file({**load_file(folder / WEIGHTS), "extra": torch.zeros(1)}, folder / WEIGHTS)


def _reshape_one(folder):
    save_file({**load_file(folder / WEIGHTS), "conv_in.weight": torch.zeros(2)}, folder / WEIGHTS)


def _pickle(folder):
    (folder / WEIGHTS).unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_truncate, "cannot be read as a UNet2DModel"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "cannot be read as a UNet2DModel"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights"),
        (_pickle, "pytorch_model.bin is a pickle and is not read"),
        (_drop_one, r"1 missing \['conv_in.weight'\], 0 unknown"),
        (_add_one, r"0 missing \[\], 1 unknown \['extra'\]"),
        (_reshape_one, "cannot be read as a UNet2DModel"),
        (lambda folder: (folder / "config.json").unlink(), "neither config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not readable JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected an object"),
        (lambda folder: (folder / "config.json").write_text("{}"), "class None; expected UNet2DModel"),
        (lambda folder: edit(folder / "config.json", _class_name="AutoencoderKL"), "'AutoencoderKL'; expected"),
        (lambda folder: edit(folder / "config.json", block_out_channels=[32]), "cannot be read as a UNet2DModel"),
        (shutil.rmtree, "no folder"),
    ],
)
def test_broken_folders_are_refused(unet, harm, message):
    harm(unet)
    with pytest.raises(ValueError, match=message):
        load_model(unet)


def test_broken_pipelines_are_refused(saved, tmp_path):
    folder = shutil.copytree(saved / "pipeline", tmp_path / "pipeline")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    edit(scheduler, _class_name="UNet2DModel")
    with pytest.raises(ValueError, match="no scheduler of diffusers"):
        load_model(folder)
    edit(scheduler, _class_name="DDIMScheduler")
    assert isinstance(load_model(folder)[1], DDIMScheduler)
    shutil.rmtree(folder / "unet")
    with pytest.raises(ValueError, match=r"no unet/config.json"):
        load_model(folder)
