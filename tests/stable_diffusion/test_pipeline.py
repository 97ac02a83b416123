"""Pipeline folders of all families are read whole, and what is wrong with one is said."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lsdr.stable_diffusion.pipeline import load_pipeline

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {family: tiny.make(folder / family, family) for family in tiny.FAMILIES}


@pytest.fixture
def copy(made, tmp_path):
    """A folder of one's own to spoil."""
    return lambda family: Path(shutil.copytree(made[family], tmp_path / family))


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


def weights(part):
    return next(part.glob("*.safetensors"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_part_is_read_as_diffusers_reads_it(made, family):
    import diffusers

    pipeline = load_pipeline(made[family])
    theirs = diffusers.DiffusionPipeline.from_pretrained(made[family], local_files_only=True)
    names = ["text_encoder", "text_encoder_2", "text_encoder_3"][: len(pipeline.text_encoders)]
    pairs = [(pipeline.network, getattr(theirs, "unet", None) or theirs.transformer), (pipeline.vae, theirs.vae)]
    pairs += [(ours, getattr(theirs, name)) for ours, name in zip(pipeline.text_encoders, names, strict=True)]
    for ours, other in pairs:
        assert type(ours) is type(other)
        state, expected = ours.state_dict(), other.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)
    assert pipeline.family == ("sd" if family == "sd2" else family)
    assert len(pipeline.text_encoders) == {"sd": 1, "sd2": 1, "sdxl": 2, "sd3": 3, "flux": 2}[family]
    assert type(pipeline.scheduler) is type(theirs.scheduler)
    assert [type(each) for each in pipeline.tokenizers] == [
        type(getattr(theirs, name.replace("text_encoder", "tokenizer"))) for name in names
    ]


def test_the_network_trains_and_the_rest_is_frozen(made):
    pipeline = load_pipeline(made["sdxl"])
    assert pipeline.network.training
    assert all(each.requires_grad and each.dtype == torch.float32 for each in pipeline.network.parameters())
    for part in (pipeline.vae, *pipeline.text_encoders):
        assert not any(module.training for module in part.modules())
        assert not any(each.requires_grad for each in part.parameters())


def test_loading_says_nothing_and_leaves_the_libraries_talkative(made, capfd):
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_transformers.enable_progress_bar()
    before = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    load_pipeline(made["sd3"])
    assert capfd.readouterr() == ("", "")
    assert (of_diffusers.get_verbosity(), of_transformers.get_verbosity()) == before
    assert of_transformers.is_progress_bar_enabled()
    of_transformers.disable_progress_bar()


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_half_precision_variants_are_cast_up(tmp_path, family):
    folder = tiny.make(tmp_path / "half", family, dtype=torch.float16, variant="fp16")
    assert all(".fp16." in file.name for file in folder.rglob("*.safetensors"))
    pipeline = load_pipeline(folder)
    for part in (pipeline.network, pipeline.vae, *pipeline.text_encoders):
        assert {each.dtype for each in part.parameters()} == {torch.float32}
    whole = load_pipeline(tiny.make(tmp_path / "whole", family))
    ours, theirs = pipeline.network.state_dict(), whole.network.state_dict()
    assert all(torch.equal(ours[key], theirs[key].half().float()) for key in ours)


def test_full_precision_is_preferred_to_a_variant(copy, tmp_path):
    folder = copy("sd")
    halved = {key: torch.zeros_like(value).half() for key, value in load_file(weights(folder / "unet")).items()}
    save_file(halved, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file(halved, folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    assert any(each.any() for each in load_pipeline(folder).network.parameters())


def test_a_variant_that_is_neither_fp16_nor_bf16_is_refused_by_its_name(copy):
    folder = copy("sd")
    weights(folder / "vae").rename(folder / "vae" / "diffusion_pytorch_model.ema.safetensors")
    with pytest.raises(ValueError, match=r"vae holds weights of the variants \['ema'\]"):
        load_pipeline(folder)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_in_shards(made, copy, variant):
    from diffusers import UNet2DConditionModel

    folder = copy("sd")
    shutil.rmtree(folder / "unet")
    model = UNet2DConditionModel.from_pretrained(made["sd"] / "unet", local_files_only=True)
    model.save_pretrained(folder / "unet", max_shard_size="200KB", variant=variant)
    assert len(list((folder / "unet").glob("*.safetensors"))) > 2
    loaded = load_pipeline(folder).network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())


def test_the_vae_with_the_old_names_of_its_attention(made, copy):
    folder = copy("sd")
    file = weights(folder / "vae")
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # as in SD 1.5's own folder
    state = load_file(file)
    for to, old in new.items():
        state = {key.replace(f"attentions.0.{to}.", f"attentions.0.{old}."): value for key, value in state.items()}
    assert any("proj_attn" in key for key in state)
    save_file(state, file, {"format": "pt"})
    ours, expected = load_pipeline(folder).vae.state_dict(), load_pipeline(made["sd"]).vae.state_dict()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_text_encoders_keep_their_old_names_and_position_ids(copy):
    folder = copy("sd")
    file = weights(folder / "text_encoder")
    state = load_file(file)
    assert all(key.startswith("text_model.") for key in state)
    save_file({**state, "text_model.embeddings.position_ids": torch.arange(77)[None]}, file, {"format": "pt"})
    loaded = load_pipeline(folder).text_encoders[0].state_dict()
    found = next(value for key, value in loaded.items() if key.endswith("token_embedding.weight"))
    assert torch.equal(found, state["text_model.embeddings.token_embedding.weight"])


def test_sd3_without_its_t5(copy):
    folder = copy("sd3")
    shutil.rmtree(folder / "text_encoder_3")
    shutil.rmtree(folder / "tokenizer_3")
    edit(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    assert len(load_pipeline(folder).text_encoders) == 2


@pytest.mark.parametrize(
    ("family", "part"),
    [(family, part) for family, network in (("sd", "unet"), ("sd3", "transformer")) for part in (network, "vae")]
    + [("sd", "text_encoder"), ("sdxl", "text_encoder_2"), ("sd3", "text_encoder_3")],
)
class TestWeights:
    def test_a_missing_weight(self, copy, family, part):
        folder = copy(family)
        state = load_file(weights(folder / part))
        name = max(key for key in state if key.endswith("weight") and "embed" not in key and key != "shared.weight")
        del state[name]
        save_file(state, weights(folder / part), {"format": "pt"})
        with pytest.raises(ValueError, match=rf"{part} are not those of its config.json: 1 missing"):
            load_pipeline(folder)

    def test_a_weight_of_another_shape(self, copy, family, part):
        folder = copy(family)
        state = load_file(weights(folder / part))
        name = max(key for key in state if key.endswith("weight") and state[key].ndim > 1)
        state[name] = torch.zeros(3, 5)
        save_file(state, weights(folder / part), {"format": "pt"})
        with pytest.raises(ValueError, match=rf"{part} (are not those of its config|cannot be read as a )"):
            load_pipeline(folder)

    def test_a_truncated_file(self, copy, family, part):
        folder = copy(family)
        file = weights(folder / part)
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match=rf"{file.name} is no whole safetensors file \(truncated\?\)"):
            load_pipeline(folder)

    def test_a_pickle_is_refused_and_not_opened(self, copy, family, part):
        folder = copy(family)
        weights(folder / part).unlink()
        (folder / part / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
        with pytest.raises(ValueError, match=rf"{part} holds no weights .*: pytorch_model.bin may be a pickle"):
            load_pipeline(folder)

    def test_no_configuration(self, copy, family, part):
        folder = copy(family)
        (folder / part / "config.json").unlink()
        with pytest.raises(ValueError, match=rf"{part}/config.json is missing"):
            load_pipeline(folder)


def test_an_unknown_weight_of_the_network_is_refused(copy):
    folder = copy("sd")
    state = load_file(weights(folder / "unet"))
    save_file({**state, "extra.weight": torch.zeros(1)}, weights(folder / "unet"), {"format": "pt"})
    with pytest.raises(ValueError, match=r"0 missing .*1 unknown"):
        load_pipeline(folder)


def test_no_folder_and_no_pipeline(made, tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        load_pipeline(tmp_path / "nothing")
    shutil.copy(weights(made["sd"] / "vae"), tmp_path / "v1-5-pruned.safetensors")
    with pytest.raises(ValueError, match=r"no model_index.json.*v1-5-pruned.safetensors alone.*from_single_file"):
        load_pipeline(tmp_path)


def test_no_network(copy):
    folder = copy("sd")
    shutil.rmtree(folder / "unet")
    with pytest.raises(ValueError, match="has no unet/ and no transformer/"):
        load_pipeline(folder)


@pytest.mark.parametrize("part", ["scheduler", "tokenizer"])
def test_a_missing_part(copy, part):
    folder = copy("sd")
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=rf"{part}(/scheduler_config.json)? is missing"):
        load_pipeline(folder)


def test_a_broken_tokenizer(copy):
    folder = copy("sd")
    (folder / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer cannot be read as a CLIPTokenizer"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("part", "entry", "expected"),
    [
        ("vae", ["diffusers", "AsymmetricAutoencoderKL"], "expected diffusers's AutoencoderKL"),
        ("vae", ["mine", "AutoencoderKL"], "code in the folder, are not loaded"),
        ("text_encoder", ["transformers", "BertModel"], "expected transformers's CLIPTextModel"),
        ("text_encoder", ["alt_diffusion", "RobertaSeriesModelWithTransformation"], "expected transformers"),
        ("tokenizer", ["transformers", "AutoTokenizer"], "CLIPTokenizer or CLIPTokenizerFast"),
        ("text_encoder", None, "names no text_encoder"),
    ],
)
def test_classes_that_are_not_a_familys_are_refused(copy, part, entry, expected):
    folder = copy("sd")
    edit(folder / "model_index.json", **{part: entry})
    with pytest.raises(ValueError, match=expected):
        load_pipeline(folder)


@pytest.mark.parametrize("name", ["UNet2DModel", "PixArtTransformer2DModel", None])
def test_an_unknown_network(copy, name):
    folder = copy("sd")
    edit(folder / "unet" / "config.json", _class_name=name)
    with pytest.raises(ValueError, match="expected UNet2DConditionModel"):
        load_pipeline(folder)


def test_an_unknown_scheduler(copy):
    folder = copy("sd")
    edit(folder / "scheduler" / "scheduler_config.json", _class_name="UNet2DModel")
    with pytest.raises(ValueError, match="'UNet2DModel', which is no scheduler of diffusers"):
        load_pipeline(folder)


@pytest.mark.parametrize("change", [{"class_embed_type": "timestep"}, {"addition_embed_type": "image"}])
def test_a_unet_that_takes_more_than_text(copy, change):
    folder = copy("sd")
    edit(folder / "unet" / "config.json", **change)
    with pytest.raises(ValueError, match="is conditioned on more than text"):
        load_pipeline(folder)


def test_an_inpainting_unet(tmp_path):
    folder = tiny.make(tmp_path / "inpainting", "sd", network={"in_channels": 9})
    with pytest.raises(ValueError, match=r"takes 9 channels: it is an inpainting UNet .* which takes 4"):
        load_pipeline(folder)


def test_the_sdxl_refiner(copy):
    folder = copy("sdxl")
    edit(folder / "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    with pytest.raises(ValueError, match="has no text_encoder: is it the SDXL refiner"):
        load_pipeline(folder)


@pytest.mark.parametrize(
    ("family", "change", "expected"),
    [
        ("sd", {"in_channels": 5}, r"takes 5 channels and its VAE makes latents of 4: expected 4"),
        ("sd", {"out_channels": 3}, r"returns 3 channels for latents of 4"),
        ("sd3", {"in_channels": 32}, r"takes 32 channels and its VAE makes latents of 16: expected 16"),
        ("flux", {"in_channels": 128}, r"takes 128 channels .* \(4 times as many once packed\): expected 64"),
        (
            "sd",
            {"cross_attention_dim": 24},
            r"text encoder gives vectors of 32 and the UNet's cross_attention_dim is 24",
        ),
        ("sdxl", {"cross_attention_dim": 24}, r"two text encoders gives vectors of 32 .*cross_attention_dim is 24"),
        ("sdxl", {"addition_time_embed_dim": 4}, r"gives vectors of 40 .*projection_class_embeddings_input_dim is 64"),
        ("sd3", {"joint_attention_dim": 40}, r"the T5 gives vectors of 32 .*joint_attention_dim is 40"),
        ("sd3", {"pooled_projection_dim": 20}, r"pooled text gives vectors of 24 .*pooled_projection_dim is 20"),
        ("flux", {"joint_attention_dim": 40}, r"the T5 gives vectors of 32 .*joint_attention_dim is 40"),
        ("flux", {"pooled_projection_dim": 20}, r"the CLIP gives vectors of 16 .*pooled_projection_dim is 20"),
    ],
)
def test_parts_of_different_models(tmp_path, family, change, expected):
    folder = tiny.make(tmp_path / "mixed", family, network=change)
    with pytest.raises(ValueError, match=expected):
        load_pipeline(folder)


def test_a_tokenizer_with_more_tokens_than_the_encoder_knows(copy):
    folder = copy("sd")
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    vocabulary |= {f"more{index}": len(vocabulary) + index for index in range(5)}
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match=r"the tokenizer of text_encoder has \d+ tokens and the encoder knows"):
        load_pipeline(folder)
