"""What the layers of networks in diffusers are called in the models' original code, and which of them it fuses."""

import re
from collections.abc import Callable, Collection

_UNET = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_INSIDE = {original: name for name, original in _RESNET.items()}
_PART = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")

_ORIGINAL = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")
_MIDDLE = re.compile(r"middle_block\.(\d)\.(.+)")

# Original layer: the layers of diffusers whose outputs it stacks; of the block `x` of its kind.
_FLUX = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "double_blocks.x.img_mod.lin": ("transformer_blocks.x.norm1.linear",),
    "double_blocks.x.txt_mod.lin": ("transformer_blocks.x.norm1_context.linear",),
    "double_blocks.x.img_attn.qkv": tuple(f"transformer_blocks.x.attn.to_{which}" for which in "qkv"),
    "double_blocks.x.txt_attn.qkv": tuple(f"transformer_blocks.x.attn.add_{which}_proj" for which in "qkv"),
    "double_blocks.x.img_attn.proj": ("transformer_blocks.x.attn.to_out.0",),
    "double_blocks.x.txt_attn.proj": ("transformer_blocks.x.attn.to_add_out",),
    "double_blocks.x.img_mlp.0": ("transformer_blocks.x.ff.net.0.proj",),
    "double_blocks.x.img_mlp.2": ("transformer_blocks.x.ff.net.2",),
    "double_blocks.x.txt_mlp.0": ("transformer_blocks.x.ff_context.net.0.proj",),
    "double_blocks.x.txt_mlp.2": ("transformer_blocks.x.ff_context.net.2",),
    "single_blocks.x.linear1": (
        *(f"single_transformer_blocks.x.attn.to_{which}" for which in "qkv"),
        "single_transformer_blocks.x.proj_mlp",
    ),
    "single_blocks.x.linear2": ("single_transformer_blocks.x.proj_out",),
    "single_blocks.x.modulation.lin": ("single_transformer_blocks.x.norm.linear",),
}
_SD3 = {
    "x_embedder.proj": ("pos_embed.proj",),
    "context_embedder": ("context_embedder",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "joint_blocks.x.x_block.adaLN_modulation.1": ("transformer_blocks.x.norm1.linear",),
    "joint_blocks.x.context_block.adaLN_modulation.1": ("transformer_blocks.x.norm1_context.linear",),
    "joint_blocks.x.x_block.attn.qkv": tuple(f"transformer_blocks.x.attn.to_{which}" for which in "qkv"),
    "joint_blocks.x.x_block.attn2.qkv": tuple(f"transformer_blocks.x.attn2.to_{which}" for which in "qkv"),
    "joint_blocks.x.context_block.attn.qkv": tuple(f"transformer_blocks.x.attn.add_{which}_proj" for which in "qkv"),
    "joint_blocks.x.x_block.attn.proj": ("transformer_blocks.x.attn.to_out.0",),
    "joint_blocks.x.x_block.attn2.proj": ("transformer_blocks.x.attn2.to_out.0",),
    "joint_blocks.x.context_block.attn.proj": ("transformer_blocks.x.attn.to_add_out",),
    "joint_blocks.x.x_block.mlp.fc1": ("transformer_blocks.x.ff.net.0.proj",),
    "joint_blocks.x.x_block.mlp.fc2": ("transformer_blocks.x.ff.net.2",),
    "joint_blocks.x.context_block.mlp.fc1": ("transformer_blocks.x.ff_context.net.0.proj",),
    "joint_blocks.x.context_block.mlp.fc2": ("transformer_blocks.x.ff_context.net.2",),
}


def original_layers(layers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The original names of a network's layers, each with the layers of diffusers that it is made of.

    Known are the UNet of Stable Diffusion 1.x, 2.x and XL (CompVis and Stability: "input_blocks.1.1..."), the
    transformer of Stable Diffusion 3 ("joint_blocks.0.x_block...") and that of Flux ("double_blocks.0..."). The last
    two have one projection for queries, keys and values, and Flux's single blocks one for these and the MLP: such a
    layer stacks the outputs of several of diffusers'. Left out are the modulations before the last projection
    ("norm_out", and "norm1_context" of the last block of Stable Diffusion 3), whose halves the two libraries order
    differently.

    Source: `diffusers.loaders.single_file_utils`, read the other way round; for Flux also kohya's sd-scripts,
    `networks/convert_flux_lora.py`.

    Args:
        layers: Names of all the layers of the network (not of the adapted ones alone: they tell which network it is),
            norms included if their names are wanted too, without ".weight" and without the name of a component.

    Returns:
        {original name: names in diffusers, in the order in which they are stacked}; empty for other networks.

    Example:
        >>> original_layers(["down_blocks.0.resnets.0.conv1", "down_blocks.1.attentions.0.proj_in"])
        {'input_blocks.1.0.in_layers.2': ('down_blocks.0.resnets.0.conv1',),
         'input_blocks.3.1.proj_in': ('down_blocks.1.attentions.0.proj_in',)}
    """
    present = set(layers)
    if any(layer.startswith("down_blocks.") for layer in present):
        name = _unet(present)
        return {original: (layer,) for layer in layers if (original := name(layer))}
    if "single_transformer_blocks.0.proj_mlp" in present and "x_embedder" in present:
        return _stacked(_FLUX, present)
    if "pos_embed.proj" in present and "transformer_blocks.0.attn.add_q_proj" in present:
        found = _stacked(_SD3, present)
        # The last block ends in a modulation of two parts, in another order than diffusers': it has no second MLP.
        last = [each for each in found if each.endswith("context_block.adaLN_modulation.1")]
        for each in last:
            if each.replace("adaLN_modulation.1", "mlp.fc1") not in found:
                del found[each]
        return found
    return {}


def diffusers_layers(originals: Collection[str]) -> dict[str, str]:
    """The names in diffusers of the layers of a UNet in its original code: the way back of `original_layers`.

    Args:
        originals: All its layers, "input_blocks.1.1.proj_in", without ".weight" and without the name of a component.

    Returns:
        {name in diffusers: original name}; empty for other networks.

    Example:
        >>> diffusers_layers(["input_blocks.1.0.in_layers.2", "input_blocks.2.0.op", "input_blocks.3.1.proj_in"])
        {'down_blocks.0.resnets.0.conv1': 'input_blocks.1.0.in_layers.2',
         'down_blocks.0.downsamplers.0.conv': 'input_blocks.2.0.op',
         'down_blocks.1.attentions.0.proj_in': 'input_blocks.3.1.proj_in'}
    """
    parts = {original: match for original in originals if (match := _ORIGINAL.fullmatch(original))}
    inputs = [match for match in parts.values() if match[1] == "input"]
    # A level ends in its downsampler; a network of one level has none.
    ends = [int(match[2]) for match in inputs if match[4] == "op"]
    depth = min(ends, default=1 + max((int(match[2]) for match in inputs), default=0))
    outside = {original: name for name, original in _UNET.items()}
    found = {}
    for original in originals:
        if original in outside:
            found[outside[original]] = original
        elif original in parts:
            found[_named(parts[original], depth)] = original
        elif middle := _MIDDLE.fullmatch(original):
            kind = "attentions.0" if middle[1] == "1" else f"resnets.{int(middle[1]) // 2}"
            found[f"mid_block.{kind}.{_INSIDE.get(middle[2], middle[2])}"] = original
    return found


def _named(part: re.Match[str], depth: int) -> str:
    down = part[1] == "input"
    block, index = divmod(int(part[2]) - down, depth)
    stage = f"{'down' if down else 'up'}_blocks.{block}"
    if part[4] in ("op", "conv"):
        return f"{stage}.{'downsamplers' if down else 'upsamplers'}.0.conv"
    return f"{stage}.{'resnets' if part[3] == '0' else 'attentions'}.{index}.{_INSIDE.get(part[4], part[4])}"


def _unet(present: set[str]) -> Callable[[str], str | None]:
    """The original name of a layer of a UNet, None for one that it does not have."""
    parts = [match for layer in present if (match := _PART.fullmatch(layer))]
    depth = 1 + max((int(part[4]) for part in parts if part[1] == "down" and part[3] == "resnets"), default=0)
    attended = {part[2] for part in parts if part[1] == "up" and part[3] == "attentions"}

    def name(layer: str) -> str | None:
        match = _PART.fullmatch(layer)
        if match is None:
            return _UNET.get(layer)
        stage, block, kind, index, inside = match.groups()
        inside = _RESNET.get(inside) if kind == "resnets" else inside
        if inside is None:
            return None
        if stage == "mid":
            return f"middle_block.{2 * int(index) if kind == 'resnets' else 1}.{inside}"
        first = int(block) * (depth + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + depth + 1}.0.{inside.replace('conv', 'op')}"
        if kind == "upsamplers":
            return f"output_blocks.{first + depth}.{2 if block in attended else 1}.{inside}"
        blocks, number = ("input", first + int(index) + 1) if stage == "down" else ("output", first + int(index))
        return f"{blocks}_blocks.{number}.{0 if kind == 'resnets' else 1}.{inside}"

    return name


def _stacked(table: dict[str, tuple[str, ...]], present: set[str]) -> dict[str, tuple[str, ...]]:
    numbers = sorted({int(match[1]) for layer in present if (match := re.search(r"\.(\d+)\.", layer))})
    found: dict[str, tuple[str, ...]] = {}
    for original, parts in table.items():
        for number in numbers if ".x." in original else [0]:
            named = tuple(part.replace(".x.", f".{number}.") for part in parts)
            if present.issuperset(named):
                found[original.replace(".x.", f".{number}.", 1)] = named
    return found
