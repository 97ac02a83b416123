"""Names of layers in diffusers and in the models' original code, against diffusers' own conversion."""

import pytest
import torch

from lsdr.layers.checkpoint.match_base import match_base
from lsdr.layers.checkpoint.original_names import diffusers_layers, original_layers

diffusers = pytest.importorskip("diffusers")

CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
UNETS = {  # levels of the real networks: Stable Diffusion 1.x, XL, and one of a single level
    "sd": {"block_out_channels": (8, 8, 8, 8), "levels": (CROSS, CROSS, CROSS, PLAIN), "layers_per_block": 2},
    "sdxl": {
        "block_out_channels": (8, 8, 8),
        "levels": (PLAIN, CROSS, CROSS),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 3),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16,
    },
    "one": {"block_out_channels": (8,), "levels": (CROSS,), "layers_per_block": 1},
}


def layers_of(network):
    return list(dict.fromkeys(name.rpartition(".")[0] for name in network.state_dict()))


def unet(levels, **given):
    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(
            cross_attention_dim=8,
            attention_head_dim=2,
            norm_num_groups=4,
            down_block_types=tuple(down for down, _ in levels),
            up_block_types=tuple(up for _, up in reversed(levels)),
            **given,
        )


@pytest.mark.parametrize("given", UNETS.values(), ids=UNETS)
def test_unets_there_and_back(given):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    network = unet(**given)
    layers = layers_of(network)
    original = original_layers(layers)
    assert list(original.values()) == [(layer,) for layer in layers]
    marked = {
        f"model.diffusion_model.{name}.{kind}": f"{parts[0]}.{kind}"
        for name, parts in original.items()
        for kind in ("weight", "bias")
    }
    converted = convert_ldm_unet_checkpoint(dict(marked), network.config)
    assert converted == {name: name for name in marked.values()}
    assert diffusers_layers(original) == {parts[0]: name for name, parts in original.items()}


def test_full_size_transformers_have_a_name_for_all_but_two_kinds_of_layer():
    with torch.device("meta"):
        flux = diffusers.FluxTransformer2DModel(guidance_embeds=True)
        sd3 = diffusers.SD3Transformer2DModel(num_layers=24, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm")
    for network, left in (
        (flux, {"norm_out.linear"}),
        (sd3, {"norm_out.linear", "transformer_blocks.23.norm1_context.linear"}),
    ):
        weights = {name for name, module in network.named_modules() if getattr(module, "weight", None) is not None}
        matrices = {name for name in weights if network.get_submodule(name).weight.ndim > 1}
        original = original_layers(matrices)
        named = [layer for parts in original.values() for layer in parts]
        assert len(named) == len(set(named))
        assert matrices - set(named) == left
    assert len(original_layers([name for name, _ in flux.named_modules()])) == 19 * 10 + 38 * 3 + 9


def test_networks_of_others_have_no_names():
    assert original_layers(["transformer_blocks.0.attn1.to_q", "pos_embed.proj"]) == {}
    assert original_layers(["encoder.layers.0.fc1"]) == diffusers_layers(["encoder.layers.0.fc1"]) == {}
    assert diffusers_layers([]) == original_layers([]) == {}


@pytest.mark.parametrize("given", UNETS.values(), ids=UNETS)
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_adapters_of_diffusers_for_a_checkpoint_in_the_original_layout(given, prefix):
    layers = layers_of(unet(**given))
    original = {parts[0]: name for name, parts in original_layers(layers).items()}
    base = [f"{prefix}{name}.weight" for name in original.values()] + ["first_stage_model.encoder.conv_in.weight"]
    for spelling in ("unet.{}", "lora_unet_{}"):
        targets = {spelling.format(layer.replace(".", "_") if "lora" in spelling else layer): layer for layer in layers}
        expected = {target: (f"{prefix}{original[layer]}.weight",) for target, layer in targets.items()}
        assert match_base(targets, base) == expected
