"""LoRA files, loaded back by diffusers and read by `lsdr inspect`."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lsdr.inspection.inspect import inspect
from lsdr.stable_diffusion.kohya_keys import kohya_state
from lsdr.stable_diffusion.lora import Factors, add_lora, factors_of
from lsdr.stable_diffusion.save import save_lora

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

_SPEC = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)

DIFFUSERS, KOHYA = "pytorch_lora_weights.safetensors", "lora_kohya.safetensors"
FAMILY = {"sd": "sd", "sd2": "sd", "sdxl": "sdxl", "sd3": "sd3", "flux": "flux"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny.make(tmp_path_factory.mktemp(name), name) for name in tiny.FAMILIES}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Pipelines with the real numbers of levels and layers in their UNets, for names."""
    names = ("sd", "sd2", "sdxl")
    return {name: tiny.make(tmp_path_factory.mktemp(f"{name}-deep"), name, full_depth=True) for name in names}


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    """By family: a network with LoRA of rank 4 and alpha 2, and the folder of its files."""
    found = {}
    for name, folder in folders.items():
        network = component(folder)
        add_lora(network, rank=4, alpha=2.0)
        randomise(network)
        files = tmp_path_factory.mktemp(f"{name}-lora")
        assert save_lora(network, files, FAMILY[name], {"steps": 7}) == [files / DIFFUSERS, files / KOHYA]
        found[name] = network, files
    return found


def component(folder):
    name = "unet" if (folder / "unet").is_dir() else "transformer"
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return getattr(diffusers, index[name][1]).from_pretrained(folder, subfolder=name)


def randomise(network):
    torch.manual_seed(1)
    with torch.no_grad():
        for factors in factors_of(network).values():
            factors.up.normal_()


def run(network):
    torch.manual_seed(0)
    kind, n = type(network).__name__, 2
    given = {"timestep": torch.tensor([3.0, 900.0]), "encoder_hidden_states": torch.randn(n, 7, 32)}
    if kind == "UNet2DConditionModel":
        given["sample"] = torch.randn(n, 4, 8, 8)
        if network.config.addition_embed_type:
            given["added_cond_kwargs"] = {"text_embeds": torch.randn(n, 16), "time_ids": torch.full((n, 6), 64.0)}
    elif kind == "SD3Transformer2DModel":
        given |= {"hidden_states": torch.randn(n, 16, 8, 8), "pooled_projections": torch.randn(n, 24)}
    else:
        given |= {"hidden_states": torch.randn(n, 16, 64), "pooled_projections": torch.randn(n, 16)}
        given |= {"img_ids": torch.randn(16, 3), "txt_ids": torch.zeros(7, 3), "guidance": torch.ones(n)}
    with torch.no_grad():
        return network(**given, return_dict=False)[0]


def header(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def loaded(folder, *lora, **given):
    """The network of a fresh pipeline of diffusers into which a LoRA was loaded."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.load_lora_weights(*lora, **given)
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_diffusers_loads_the_lora_folder(folders, trained, name):
    network, files = trained[name]
    expected = run(network)
    assert (run(component(folders[name])) - expected).abs().max() > 1e-3 * expected.abs().max()
    # By the folder alone: diffusers picks its own file of the two.
    torch.testing.assert_close(run(loaded(folders[name], files)), expected)


@pytest.mark.parametrize("name", ["sd", "sd2", "sdxl"])
def test_diffusers_loads_the_kohya_file(folders, trained, name):
    network, files = trained[name]
    torch.testing.assert_close(run(loaded(folders[name], files, weight_name=KOHYA)), run(network))


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_every_kind_of_layer_has_a_name_that_diffusers_knows(deep, tmp_path, name):
    network = component(deep[name])
    layers = add_lora(network, rank=2, alpha=4.0, targets=["*"])
    randomise(network)
    save_lora(network, tmp_path, name)
    expected = run(network)
    found = loaded(deep[name], tmp_path, weight_name=KOHYA)
    assert len(factors_of(found)) == len(layers)
    torch.testing.assert_close(run(found), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


NAMES = {  # As files of the real models have them: AUTOMATIC1111 and ComfyUI look these up.
    "sd": """down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q
        up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_v
        mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0""",
    "sdxl": """input_blocks_4_1_transformer_blocks_0_attn1_to_q input_blocks_8_1_transformer_blocks_2_attn2_to_k
        middle_block_1_transformer_blocks_0_attn1_to_out_0 output_blocks_0_1_transformer_blocks_0_attn2_to_v
        output_blocks_5_1_transformer_blocks_1_attn1_to_q""",
    "sd3": """joint_blocks_0_x_block_attn_qkv joint_blocks_0_x_block_attn_proj joint_blocks_0_context_block_attn_qkv
        joint_blocks_0_context_block_attn_proj joint_blocks_1_context_block_attn_qkv""",
    "flux": """double_blocks_0_img_attn_qkv double_blocks_0_img_attn_proj double_blocks_0_txt_attn_qkv
        double_blocks_0_txt_attn_proj single_blocks_0_linear1 single_blocks_1_linear1""",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_names_are_those_that_other_tools_know(folders, deep, name):
    network = component(deep.get(name, folders[name]))
    add_lora(network, rank=4, alpha=2.0)
    state = kohya_state(network, name, factors_of(network))
    for layer in NAMES[name].split():
        down, up, alpha = (state[f"lora_unet_{layer}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert alpha.shape == ()
        assert down.shape[0] == up.shape[1] == 2 * float(alpha)
    layers = {key.partition(".")[0].removeprefix("lora_unet_") for key in state}
    assert all(key.startswith("lora_unet_") for key in state)
    assert len(state) == 3 * len(layers)
    if name in ("sd3", "flux"):
        assert layers == set(NAMES[name].split()) | (
            {"joint_blocks_1_x_block_attn_qkv", "joint_blocks_1_x_block_attn_proj"} if name == "sd3" else set()
        )


def test_the_headers_tell_rank_alpha_and_model(trained):
    for name, (network, files) in trained.items():
        part = "unet" if FAMILY[name] in ("sd", "sdxl") else "transformer"
        told = json.loads(header(files / DIFFUSERS)["lora_adapter_metadata"])
        assert (told[f"{part}.r"], told[f"{part}.lora_alpha"]) == (4, 2)
        assert set(told[f"{part}.target_modules"]) == set(factors_of(network))
        words = header(files / KOHYA)
        assert (words["ss_network_dim"], words["ss_network_alpha"], words["steps"]) == ("4", "2.0", "7")
        # AUTOMATIC1111: XL if the version starts with "sdxl_", else 2.x if ss_v2 is "True", else 1.x.
        version = words.get("ss_base_model_version", "")
        assert version.startswith("sdxl_") == (name == "sdxl")
        assert (words.get("ss_v2") == "True") == (name == "sd2")


def test_kohyas_flux_layout_at_full_width_as_diffusers_reads_it():
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    torch.manual_seed(0)
    factors = {}
    for layer, module in network.named_modules():
        if isinstance(module, torch.nn.Linear) and layer not in ("norm_out.linear", "proj_out"):
            outputs, inputs = module.weight.shape
            factors[layer] = Factors(torch.randn(1, inputs), torch.randn(outputs, 1), 3.0)
    state = kohya_state(network, "flux", factors)
    assert state["lora_unet_single_blocks_0_linear1.lora_up.weight"].shape == (3 * 3072 + 12288, 4)
    found = diffusers.FluxPipeline.lora_state_dict(dict(state))
    for layer, each in factors.items():
        # Some of the layers outside the blocks lose their prefix on this way.
        down, up = (found.get(f"transformer.{layer}.{end}", found.get(f"{layer}.{end}")) for end in _ENDS)
        x = torch.randn(each.down.shape[1])
        torch.testing.assert_close(up @ (down @ x), 3.0 * each.up @ (each.down @ x), rtol=1e-4, atol=1e-2)


_ENDS = ("lora_A.weight", "lora_B.weight")


class _Original(dict):
    """A checkpoint in an original layout that is zero but where it is told."""

    def __missing__(self, name):
        return torch.zeros(12, 4)

    def pop(self, name):
        return super().pop(name) if name in self else torch.zeros(12, 4)


def test_kohyas_layout_of_stable_diffusion_3_as_diffusers_reads_that_models_weights(folders):
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    network = component(folders["sd3"])
    layers = add_lora(network, rank=2, alpha=6.0, targets=["transformer_blocks*", "*embed*", "proj_out"][:1])
    layers = [layer for layer in layers if layer != "transformer_blocks.1.norm1_context.linear"]
    randomise(network)
    factors = {layer: each for layer, each in factors_of(network).items() if layer in layers}
    state = kohya_state(network, "sd3", factors)
    original = _Original({"context_embedder.weight": torch.zeros(32, 32)})
    for down in [name for name in state if name.endswith(".lora_down.weight")]:
        name = down.removesuffix(".lora_down.weight")
        delta = state[f"{name}.alpha"] / len(state[down]) * state[f"{name}.lora_up.weight"] @ state[down]
        # In the original modules only "joint_blocks", "x_block" and the like have underscores of their own.
        dotted = name.removeprefix("lora_unet_").replace("_", ".")
        for words in ("joint_blocks", "x_block", "context_block", "adaLN_modulation"):
            dotted = dotted.replace(words.replace("_", "."), words)
        original[f"{dotted}.weight"] = delta
    converted = convert_sd3_transformer_checkpoint_to_diffusers(original)
    assert not [name for name in original if name.startswith("joint_blocks")]
    for layer, each in factors.items():
        torch.testing.assert_close(converted[f"{layer}.weight"], 3.0 * each.up @ each.down)


def test_a_part_of_a_fused_layer_is_left_as_it_is(folders, tmp_path):
    network = component(folders["flux"])
    add_lora(
        network, rank=2, alpha=1.0, targets=["single_transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v"]
    )
    randomise(network)
    save_lora(network, tmp_path, "flux")
    tensors = load_file(tmp_path / KOHYA)
    name = "lora_unet_single_blocks_0_linear1"
    delta = tensors[f"{name}.alpha"] / 2 * tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]
    key = factors_of(network)["single_transformer_blocks.0.attn.to_k"]
    torch.testing.assert_close(delta[32:64], 0.5 * key.up @ key.down)
    assert delta[:32].abs().max() == delta[64:].abs().max() == 0


def test_layers_without_a_counterpart_leave_the_kohya_file_out(folders, tmp_path):
    network = component(folders["flux"])
    add_lora(network, rank=2, targets=["norm_out.linear", "to_q"])
    (tmp_path / KOHYA).write_bytes(b"of an earlier run")
    with pytest.warns(UserWarning, match=r"lora_kohya.safetensors is not written: 1 layers .*\(norm_out.linear\)"):
        assert save_lora(network, tmp_path, "flux") == [tmp_path / DIFFUSERS]
    assert not (tmp_path / KOHYA).exists()
    torch.testing.assert_close(run(loaded(folders["flux"], tmp_path)), run(network))


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_inspect_finds_the_base_of_every_adapter(folders, trained, name):
    network, files = trained[name]
    factors = factors_of(network)
    stored = {}
    for file in (DIFFUSERS, KOHYA):
        inspection = inspect(files / file, base=folders[name])
        assert not [note for note in inspection.file["notes"] if "no weight of the base" in note or "alpha" in note]
        for row in inspection.layers:
            assert (row["unknown"], row["adapter"]["scale"]) == ([], 0.5)
            assert row["delta"]["relative"] > 0
            assert "base_note" not in row["adapter"]
        stored[file] = inspection.layers
    assert {row["name"].partition(".")[2] for row in stored[DIFFUSERS]} == set(factors)
    for row in stored[DIFFUSERS]:
        layer = row["name"].partition(".")[2]
        weight = network.get_submodule(layer).base_layer.weight.detach().flatten(1)
        delta = (0.5 * factors[layer].up @ factors[layer].down).detach()
        assert row["delta"]["relative"] == pytest.approx(float(delta.norm() / weight.norm()), rel=1e-3)
    # Both files hold the same change, however it is cut up; of queries, keys and values that are one layer too.
    sizes = [sum(row["frobenius"] ** 2 for row in rows) for rows in stored.values()]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)
    if name in ("sd3", "flux"):
        assert len(stored[KOHYA]) < len(stored[DIFFUSERS])
        fused = {"sd3": "joint_blocks_0_x_block_attn_qkv", "flux": "double_blocks_0_img_attn_qkv"}[name]
        (row,) = [row for row in stored[KOHYA] if row["name"] == f"lora_unet_{fused}"]
        parts = [f"transformer_blocks.0.attn.to_{which}" for which in "qkv"]
        weight = torch.cat([network.get_submodule(part).base_layer.weight.detach() for part in parts])
        delta = torch.cat([(0.5 * factors[part].up @ factors[part].down).detach() for part in parts])
        assert row["delta"]["relative"] == pytest.approx(float(delta.norm() / weight.norm()), rel=1e-3)
        assert row["adapter"]["sum_sigma_max"] == pytest.approx(
            float(torch.linalg.matrix_norm(weight + delta, 2)), rel=1e-2
        )
