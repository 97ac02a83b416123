"""Networks by name, built with diffusers, or read from a diffusers folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lsdr.diffusion.call_model import call_model
from lsdr.diffusion.load_model import load_model, without_label_dropout

__all__ = ["MODELS", "Preset", "build_model", "call_model", "load_model"]


@dataclass(frozen=True)
class Preset:
    """A network by name: what it is, and the options that diffusers builds it from."""

    description: str
    kind: Literal["unet", "dit"]
    options: Mapping[str, Any]


MODELS: dict[str, Preset] = {
    "unet-tiny": Preset(
        "UNet2DModel, 0.7M parameters, two levels; learns 8x8 and 16x16 images on a laptop",
        "unet",
        {
            "block_out_channels": (32, 64),
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 8,
        },
    ),
    "unet-small": Preset(
        "UNet2DModel, 6.5M parameters, three levels, attention at half size",
        "unet",
        {
            "block_out_channels": (64, 128, 128),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 2,
            "attention_head_dim": 32,
        },
    ),
    # Ho et al. 2020, appendix B, without its dropout of 0.1, as in the published google/ddpm-cifar10-32
    "unet-base": Preset(
        "UNet2DModel, 35.7M parameters: DDPM's network for CIFAR-10, four levels, attention at half size",
        "unet",
        {
            "block_out_channels": (128, 256, 256, 256),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 2,
            "attention_head_dim": None,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
        },
    ),
    # Peebles & Xie 2023, table 1; larger than there (33M, 130M), as diffusers gives each block a time MLP of its own
    "dit-tiny": Preset(
        "DiTTransformer2DModel, 0.8M parameters, 4 blocks of width 96, patches of 2",
        "dit",
        {"num_attention_heads": 3, "attention_head_dim": 32, "num_layers": 4, "patch_size": 2},
    ),
    "dit-small": Preset(
        "DiTTransformer2DModel, 35M parameters: DiT-S/2, 12 blocks of width 384",
        "dit",
        {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 12, "patch_size": 2},
    ),
    "dit-base": Preset(
        "DiTTransformer2DModel, 138M parameters: DiT-B/2, 12 blocks of width 768",
        "dit",
        {"num_attention_heads": 12, "attention_head_dim": 64, "num_layers": 12, "patch_size": 2},
    ),
}
"""Presets by name."""


def build_model(name_or_folder: str | Path, channels: int, size: int, classes: int | None = None) -> nn.Module:
    """Build a network for square images, or read one from a diffusers folder on disk.

    Initial weights are drawn from torch's global generator alone: seed it before. UNets start as diffusers starts
    them; a DiT starts as in its paper (adaLN-Zero: every block the identity, the output zero), which diffusers leaves
    out. Label dropout, which diffusers draws anew in every block of a DiT, is off: the network is a function of its
    arguments.

    Args:
        name_or_folder: A key of `MODELS`, or a folder (see `load_model`, which also gives the folder's scheduler).
        channels: Channels of the images.
        size: Height and width of the images.
        classes: Number of classes for a class-conditional network; None for an unconditional one.

    Returns:
        The network, float32, in training mode, on torch's default device.

    Raises:
        ValueError: If the name is neither a preset nor a folder, the network cannot take images of this size, or a
            folder's network was made for other channels, sizes or classes.

    Example:
        >>> model = build_model("unet-tiny", channels=1, size=8)
        >>> model.conv_in.weight.shape
        torch.Size([32, 1, 3, 3])
    """
    preset = MODELS.get(str(name_or_folder))
    if preset is None:
        if not Path(name_or_folder).is_dir():
            raise ValueError(f"no model {str(name_or_folder)!r}: it is neither a folder nor one of {', '.join(MODELS)}")
        return load_model(name_or_folder, channels=channels, size=size, classes=classes)[0]
    if channels < 1 or (classes is not None and classes < 1):
        raise ValueError(f"expected at least one channel and one class (or None), got {channels} and {classes}")
    _check_size(str(name_or_folder), preset, size)
    from diffusers import DiTTransformer2DModel, UNet2DModel

    shape = {"sample_size": size, "in_channels": channels, "out_channels": channels}
    model: nn.Module
    if preset.kind == "unet":
        model = UNet2DModel(**preset.options, **shape, num_class_embeds=classes)
    else:
        model = DiTTransformer2DModel(**preset.options, **shape, num_embeds_ada_norm=classes or 1)
        _initialise_dit(model)
    return without_label_dropout(model).train()


def _multiple(preset: Preset) -> int:
    """What the size must be a multiple of: the strides multiplied together, or the patch."""
    if preset.kind == "unet":
        return int(2 ** (len(preset.options["block_out_channels"]) - 1))
    return int(preset.options["patch_size"])


def _check_size(name: str, preset: Preset, size: int) -> None:
    """Twice the multiple is the least, so that the innermost features have an extent: 2 x 2."""
    step = _multiple(preset)
    if size % step == 0 and size >= 2 * step:
        return
    others = [n for n, p in MODELS.items() if size % _multiple(p) == 0 and size >= 2 * _multiple(p)]
    nearest = max(2, round(size / step)) * step
    raise ValueError(
        f"{name} cannot take images of {size}x{size}: the size must be a multiple of {step} and at least {2 * step}. "
        f"Resize to {nearest}" + (f", or use {', '.join(others)}" if others else "")
    )


def _initialise_dit(model: nn.Module) -> None:
    """The initialisation of DiT (Peebles & Xie 2023, section 3.2; facebookresearch/DiT, initialize_weights)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            if "timestep_embedder" in name:
                nn.init.normal_(module.weight, std=0.02)
            elif name.endswith("norm1.linear") or name.startswith("proj_out"):
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
