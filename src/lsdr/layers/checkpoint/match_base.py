"""Which weight of a base model an adapter is for."""

import re
from collections import defaultdict
from collections.abc import Iterable

from lsdr.layers.checkpoint.names import plain_names
from lsdr.layers.checkpoint.original_names import diffusers_layers, original_layers

# kohya's prefixes, and the components that they can mean, in the order in which they are tried.
_KOHYA = {
    "lora_unet_": ("unet.", "transformer.", "model.diffusion_model."),
    "lora_transformer_": ("transformer.",),
    "lora_te1_": ("text_encoder.",),
    "lora_te2_": ("text_encoder_2.",),
    "lora_te3_": ("text_encoder_3.",),
    "lora_te_": ("text_encoder.",),
    "lycoris_": ("unet.", "transformer.", "text_encoder."),
}


def match_base(targets: Iterable[str], base_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Find the weight that each adapter is added to.

    kohya writes underscores for dots ("lora_unet_mid_block_attentions_0_proj_in"), peft and diffusers keep the dots.
    A base that is one component ("mid_block...") suits adapters of a pipeline ("unet.mid_block...") and the reverse.
    For Stable Diffusion XL, 3 and Flux kohya's names are those of the models' original code, and one of its layers may
    be several of a base in diffusers' layout: see `original_layers`. A UNet as the base may also be in the layout of
    the original checkpoints and the adapters in diffusers'. Names are compared, not guessed: adapters in the naming of
    any other library than the base stay without a match.

    Args:
        targets: Targets of `read_adapters`.
        base_names: Names of the entries of the base checkpoint.

    Returns:
        {target: names of the base entries that make up its weight, one above the other; one name but for layers that
        the original code fuses}, less the targets that match none or more than one.
    """
    targets = list(targets)
    stored = {}
    for name, plain in plain_names(base_names).items():
        if plain.endswith(".weight"):
            stored[plain.removesuffix(".weight")] = name
    flat: defaultdict[str, list[str]] = defaultdict(list)
    ends: defaultdict[str, list[str]] = defaultdict(list)
    for layer in stored:
        flat[layer.replace(".", "_")].append(layer)
        parts = layer.split(".")
        for depth in range(1, len(parts)):
            ends[".".join(parts[depth:])].append(layer)
    components = {layer.split(".")[0] for layer in stored}
    renamed = _renamed(stored)
    found: dict[str, tuple[str, ...]] = {}
    for target in targets:
        layer = re.sub(r" \([^()]*\)$", "", target)
        prefix = next((each for each in _KOHYA if layer.startswith(each)), None)
        if prefix is None:
            matches = _dotted(layer, stored, ends)
        else:
            matches = _flattened(layer.removeprefix(prefix), prefix, flat, components, targets)
        if len(matches) == 1:
            found[target] = (stored[matches[0]],)
        elif not matches and layer in renamed:
            found[target] = tuple(stored[each] for each in renamed[layer])
    return found


def _renamed(stored: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What layers of the base are called by the other library: those that each such name stands for."""
    stored = list(stored)
    found: dict[str, tuple[str, ...]] = {}
    for component in ("unet.", "transformer.", "model.diffusion_model.", ""):
        inside = [layer.removeprefix(component) for layer in stored if layer.startswith(component)]
        for original, layers in original_layers(inside).items():
            found.setdefault(f"lora_unet_{original.replace('.', '_')}", tuple(component + layer for layer in layers))
        for name, original in diffusers_layers(inside).items():
            for spelling in (f"unet.{name}", name, f"lora_unet_{name.replace('.', '_')}"):
                found.setdefault(spelling, (component + original,))
    return found


def _flattened(
    layer: str, prefix: str, flat: dict[str, list[str]], components: set[str], targets: list[str]
) -> list[str]:
    for component in _KOHYA[prefix]:
        matches = flat.get(component.replace(".", "_") + layer, [])
        if matches:
            return matches
    # A base without components is one model. Of two text encoders that could be meant, it is not told which.
    several = len(
        {each for each in ("lora_te1_", "lora_te2_", "lora_te3_") if any(t.startswith(each) for t in targets)}
    )
    if components & {"unet", "transformer", "text_encoder"} or (prefix.startswith("lora_te") and several > 1):
        return []
    return flat.get(layer, [])


def _dotted(layer: str, stored: dict[str, str], ends: dict[str, list[str]]) -> list[str]:
    """The layer of this name; else the one that ends so, as a whole may have a prefix that a part lacks, or may not."""
    if layer in stored:
        return [layer]
    if layer in ends:
        return ends[layer]
    parts = layer.split(".")
    for depth in range(1, len(parts) - 1):
        shorter = ".".join(parts[depth:])
        if shorter in stored:
            return [shorter]
    return []
