"""Fully fine-tuned pipelines, as a folder and as one file, loaded back by diffusers."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsdr.stable_diffusion import save
from lsdr.stable_diffusion.lora import add_lora
from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.save import save_full, save_lora, save_single_file

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

_SPEC = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny.make(tmp_path_factory.mktemp(name), name) for name in tiny.FAMILIES}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Pipelines with the real numbers of levels and layers in their UNets, for names."""
    names = ("sd", "sd2", "sdxl")
    return {name: tiny.make(tmp_path_factory.mktemp(f"{name}-deep"), name, full_depth=True) for name in names}


@pytest.fixture
def adapted(folders):
    network = load_pipeline(folders["sd"]).network
    add_lora(network, rank=2)
    return network


def moved(folder):
    """The network of a pipeline, with other weights."""
    network = load_pipeline(folder).network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01
    return network


@pytest.mark.parametrize("name", ["sd", "sd2", "sdxl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_diffusers_loads_the_single_file(deep, tmp_path, name, dtype):
    pipeline = load_pipeline(deep[name])
    network = moved(deep[name])
    file = save_single_file(pipeline, network, tmp_path / "model.safetensors", dtype=dtype)
    cls = diffusers.StableDiffusionXLPipeline if name == "sdxl" else diffusers.StableDiffusionPipeline
    found = cls.from_single_file(str(file), config=str(deep[name]), local_files_only=True, torch_dtype=dtype)
    parts = [(found.unet, network), (found.vae, pipeline.vae), (found.text_encoder, pipeline.text_encoders[0])]
    if name == "sdxl":
        parts.append((found.text_encoder_2, pipeline.text_encoders[1]))
    for part, expected in parts:
        state = {key: value.to(dtype) for key, value in expected.state_dict().items()}
        assert part.state_dict().keys() == state.keys()
        for key, value in part.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_the_single_files_keys_are_the_original_ones(deep, tmp_path):
    tensors = {}
    for name in ("sd", "sd2", "sdxl"):
        pipeline = load_pipeline(deep[name])
        tensors[name] = load_file(save_single_file(pipeline, pipeline.network, tmp_path / f"{name}.safetensors"))
        assert all(tensor.dtype == torch.float16 for tensor in tensors[name].values())
        assert not {"v_pred", "ztsnr"} & tensors[name].keys()
    shared = """model.diffusion_model.time_embed.0.weight model.diffusion_model.input_blocks.0.0.bias
        model.diffusion_model.input_blocks.3.0.op.weight model.diffusion_model.middle_block.2.in_layers.0.weight
        model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj.weight model.diffusion_model.out.2.bias
        model.diffusion_model.output_blocks.5.2.conv.weight first_stage_model.encoder.down.0.downsample.conv.weight
        first_stage_model.decoder.up.3.block.0.conv1.weight first_stage_model.decoder.mid.attn_1.proj_out.weight
        first_stage_model.encoder.norm_out.weight first_stage_model.quant_conv.weight"""
    only = {
        "sd": """model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight
            model.diffusion_model.output_blocks.2.1.conv.weight
            cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight
            cond_stage_model.transformer.text_model.embeddings.position_embedding.weight""",
        "sd2": """model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias
            cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight cond_stage_model.model.ln_final.weight
            cond_stage_model.model.positional_embedding cond_stage_model.model.token_embedding.weight""",
        "sdxl": """model.diffusion_model.label_emb.0.0.weight model.diffusion_model.output_blocks.2.2.conv.bias
            model.diffusion_model.input_blocks.4.0.skip_connection.weight
            conditioner.embedders.0.transformer.text_model.final_layer_norm.weight
            conditioner.embedders.1.model.transformer.resblocks.2.mlp.c_proj.bias
            conditioner.embedders.1.model.text_projection""",
    }
    for name, found in tensors.items():
        assert [key for key in (shared + " " + only[name]).split() if key not in found] == []
        assert found["first_stage_model.decoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    assert tensors["sdxl"]["conditioner.embedders.1.model.text_projection"].shape == (20, 16)


def test_the_single_file_of_xl_says_what_it_predicts(folders, tmp_path):
    pipeline = load_pipeline(folders["sdxl"])
    file = tmp_path / "v.safetensors"
    save_single_file(pipeline, pipeline.network, file, prediction="v", zero_terminal_snr=True)
    assert {"v_pred", "ztsnr"} <= load_file(file).keys()


def test_values_beyond_half_precision_are_refused(folders, tmp_path):
    pipeline = load_pipeline(folders["sd"])
    network = pipeline.network
    with torch.no_grad():
        network.conv_in.weight[0] = 1e5
    with pytest.raises(ValueError, match=r"input_blocks.0.0.weight has values of up to 1e\+05, beyond torch.float16"):
        save_single_file(pipeline, network, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    save_single_file(pipeline, network, tmp_path / "model.safetensors", dtype=torch.bfloat16)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_diffusers_loads_the_full_folder(folders, tmp_path, name):
    pipeline = load_pipeline(folders[name])
    network = moved(folders[name])
    before = {path: path.read_bytes() for path in folders[name].rglob("*") if path.is_file()}
    folder = save_full(pipeline, network, tmp_path / "out")
    found = diffusers.DiffusionPipeline.from_pretrained(folder)
    base = diffusers.DiffusionPipeline.from_pretrained(folders[name])
    assert found.components.keys() == base.components.keys()
    for key, part in base.components.items():
        if isinstance(part, torch.nn.Module):
            expected = network if key in ("unet", "transformer") else part
            for tensor, other in zip(
                found.components[key].state_dict().values(), expected.state_dict().values(), strict=True
            ):
                assert torch.equal(tensor, other), key
        elif part is not None:
            assert type(found.components[key]) is type(part)
    assert found.scheduler.config == base.scheduler.config
    assert found.tokenizer("a photo of a flower").input_ids == base.tokenizer("a photo of a flower").input_ids
    assert before == {path: path.read_bytes() for path in folders[name].rglob("*") if path.is_file()}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_half_precision_variants_and_pickles_of_the_base(tmp_path):
    base = tiny.make(tmp_path / "base", "sd", dtype=torch.float16, variant="fp16")
    (base / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    # One part has both, as published folders do.
    shutil.copy(base / "text_encoder" / "model.fp16.safetensors", base / "text_encoder" / "model.safetensors")
    (base / "safety_checker").mkdir()
    (base / "safety_checker" / "pytorch_model.bin").write_bytes(b"a pickle")
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps(index | {"safety_checker": ["stable_diffusion", "Checker"]}))
    pipeline = load_pipeline(base)
    folder = save_full(pipeline, pipeline.network, tmp_path / "out")
    names = {path.name for path in folder.rglob("*")}
    assert not [name for name in names if name.endswith(".bin") or "fp16" in name]
    assert json.loads((folder / "model_index.json").read_text())["safety_checker"] == [None, None]
    found = diffusers.DiffusionPipeline.from_pretrained(folder)
    torch.testing.assert_close(found.vae.state_dict(), pipeline.vae.state_dict())


def test_the_scheduler_is_told_what_was_trained(folders, tmp_path):
    for name, expected in (("sd2", "DDIMScheduler"), ("sd", "DDIMScheduler"), ("sdxl", "EulerDiscreteScheduler")):
        pipeline = load_pipeline(folders[name])
        folder = save_full(pipeline, pipeline.network, tmp_path / name, prediction="v", zero_terminal_snr=True)
        scheduler = diffusers.DiffusionPipeline.from_pretrained(folder).scheduler
        assert type(scheduler).__name__ == expected
        config = scheduler.config
        assert (config.prediction_type, config.rescale_betas_zero_snr) == ("v_prediction", True)
        assert config.timestep_spacing == "trailing"
        assert (config.beta_schedule, config.beta_start) == ("scaled_linear", 0.00085)
        assert float(scheduler.alphas_cumprod[-1]) < 1e-7
        assert config.get("clip_sample", False) is False
    # What was not trained is not told.
    folder = save_full(pipeline, pipeline.network, tmp_path / "same")
    assert diffusers.DiffusionPipeline.from_pretrained(folder).scheduler.config.prediction_type == "epsilon"


def test_a_pipeline_is_replaced_and_anything_else_is_not(folders, tmp_path):
    pipeline = load_pipeline(folders["sd"])
    folder = shutil.copytree(folders["sdxl"], tmp_path / "out")
    save_full(pipeline, pipeline.network, folder)
    assert type(diffusers.DiffusionPipeline.from_pretrained(folder)).__name__ == "StableDiffusionPipeline"
    assert not (folder / "text_encoder_2").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words")
    with pytest.raises(ValueError, match="holds something else than a pipeline"):
        save_full(pipeline, pipeline.network, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_what_fails_half_way_leaves_what_was_there(folders, adapted, tmp_path, monkeypatch):
    pipeline = load_pipeline(folders["sd"])
    save_full(pipeline, pipeline.network, tmp_path / "out")
    save_lora(adapted, tmp_path / "lora", "sd")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(tensors, file, **given):
        Path(file).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "save_file", full)
    monkeypatch.setattr(pipeline.network, "save_pretrained", lambda folder: full({}, Path(folder).with_name("half")))
    for call in (
        lambda: save_full(pipeline, pipeline.network, tmp_path / "out"),
        lambda: save_lora(adapted, tmp_path / "lora", "sd"),
        lambda: save_single_file(pipeline, pipeline.network, tmp_path / "one.safetensors"),
    ):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_cannot_be_saved_so_is_refused(folders, adapted, tmp_path):
    pipeline = load_pipeline(folders["sd"])
    with pytest.raises(ValueError, match="save them with save_lora"):
        save_full(pipeline, adapted, tmp_path / "a")
    with pytest.raises(ValueError, match="save them with save_lora"):
        save_single_file(pipeline, adapted, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"should end in .safetensors"):
        save_single_file(pipeline, pipeline.network, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="call add_lora first"):
        save_lora(pipeline.network, tmp_path, "sd")
    flux = load_pipeline(folders["flux"])
    with pytest.raises(ValueError, match=r"no single-file layout .* for 'flux'"):
        save_single_file(flux, flux.network, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
