"""Stable Diffusion 1.x, 2.x and XL in the key layout of the original checkpoints (CompVis, Stability)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lsdr.layers.checkpoint.original_names import original_layers

_VAE = (
    (re.compile(r"^(encoder|decoder)\.conv_norm_out\."), r"\1.norm_out."),
    (re.compile(r"^encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\."), r"encoder.down.\1.block.\2."),
    (re.compile(r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\."), r"encoder.down.\1.downsample."),
    (re.compile(r"^(encoder|decoder)\.mid_block\.attentions\.0\."), r"\1.mid.attn_1."),
    (re.compile(r"^(encoder|decoder)\.mid_block\.resnets\.0\."), r"\1.mid.block_1."),
    (re.compile(r"^(encoder|decoder)\.mid_block\.resnets\.1\."), r"\1.mid.block_2."),
    (re.compile(r"\.conv_shortcut\."), ".nin_shortcut."),
    (re.compile(r"\.attn_1\.group_norm\."), ".attn_1.norm."),
    (re.compile(r"\.attn_1\.to_([qkv])\."), r".attn_1.\1."),
    (re.compile(r"\.attn_1\.to_out\.0\."), ".attn_1.proj_out."),
)
_DECODER = re.compile(r"^decoder\.up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)\.")
_OPEN_CLIP = (
    (re.compile(r"^embeddings\.token_embedding\.weight$"), "token_embedding.weight"),
    (re.compile(r"^embeddings\.position_embedding\.weight$"), "positional_embedding"),
    (re.compile(r"^final_layer_norm\."), "ln_final."),
    (re.compile(r"^encoder\.layers\."), "transformer.resblocks."),
    (re.compile(r"\.layer_norm([12])\."), r".ln_\1."),
    (re.compile(r"\.mlp\.fc1\."), ".mlp.c_fc."),
    (re.compile(r"\.mlp\.fc2\."), ".mlp.c_proj."),
    (re.compile(r"\.self_attn\."), ".attn."),
)
_QKV = re.compile(r"(.+)\.self_attn\.q_proj\.(weight|bias)")


def ldm_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A UNet's weights by their original names, "input_blocks.1.0.in_layers.0.weight": the same tensors.

    Args:
        state: State dict of diffusers' `UNet2DConditionModel`, as Stable Diffusion 1.x, 2.x and XL have it.

    Raises:
        ValueError: If a weight has no original name; the message names it.

    Example:
        >>> list(ldm_unet({"conv_in.weight": torch.ones(1), "down_blocks.0.resnets.0.norm1.bias": torch.ones(1)}))
        ['input_blocks.0.0.weight', 'input_blocks.1.0.in_layers.0.bias']
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    original = {parts[0]: name for name, parts in original_layers(layers).items()}
    lost = [layer for layer in layers if layer not in original]
    if lost:
        raise ValueError(
            f"{len(lost)} layers of the UNet have no name in the original layout ({', '.join(lost[:3])}); one file "
            "holds Stable Diffusion 1.x, 2.x or XL alone: save the folder instead"
        )
    renamed = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{original[layer]}.{kind}"] = tensor
    return renamed


def ldm_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's weights by their original names, "encoder.down.0.block.0.norm1.weight".

    The projections of its attention are 1 x 1 convolutions there.

    Args:
        state: State dict of diffusers' `AutoencoderKL`.
    """
    levels = 1 + max((int(found[1]) for name in state if (found := _DECODER.match(name))), default=0)
    renamed = {}
    for name, tensor in state.items():
        found = _DECODER.match(name)
        if found:  # the original counts the decoder's levels from the picture, diffusers from the latents
            inside = f"block.{found[3]}" if found[3] else "upsample"
            name = f"decoder.up.{levels - 1 - int(found[1])}.{inside}.{name[found.end() :]}"
        for pattern, replacement in _VAE:
            name = pattern.sub(replacement, name)
        if re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight$", name) and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        renamed[name] = tensor
    return renamed


def ldm_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's text encoder by its original names, which transformers' were until it dropped "text_model.".

    Args:
        state: State dict of `CLIPTextModel` of any version of transformers.
    """
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}


def ldm_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's text encoder by its original names, "transformer.resblocks.0.attn.in_proj_weight".

    Queries, keys and values are one weight there, and the text projection is transposed.

    Args:
        state: State dict of `CLIPTextModel` or `CLIPTextModelWithProjection`.
    """
    renamed = {}
    for stored, tensor in state.items():
        name = stored.removeprefix("text_model.")
        found = _QKV.fullmatch(name)
        if found:
            three = [state[stored.replace(".q_proj.", f".{which}_proj.")] for which in "qkv"]
            name, tensor = f"{found[1]}.self_attn.in_proj_{found[2]}", torch.cat(three)
        elif ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        elif name == "text_projection.weight":
            name, tensor = "text_projection", tensor.T
        for pattern, replacement in _OPEN_CLIP:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed
