"""Backbones by name. Imports no torch, so that help text is instant."""

import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

Modality = Literal["image", "text", "table"]


@dataclass(frozen=True)
class Preset:
    """A backbone and its sizes."""

    description: str
    modality: Modality
    code: int
    """Dimensions of the codes, unless another number is asked for."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the backbone is made with."""


PRESETS: dict[str, Preset] = {
    "conv-tiny": Preset(
        "images: residual convolutions, 3 stages of 16 to 64 channels",
        "image",
        128,
        {"widths": [16, 32, 64], "depth": 1},
    ),
    "conv-small": Preset(
        "images: residual convolutions, 4 stages of 64 to 256 channels",
        "image",
        256,
        {"widths": [64, 128, 192, 256], "depth": 1},
    ),
    "conv-base": Preset(
        "images: residual convolutions, 4 stages of 64 to 512 channels, two blocks each",
        "image",
        512,
        {"widths": [64, 128, 256, 512], "depth": 2},
    ),
    "transformer-tiny": Preset("text: BERT with 2 layers of 128", "text", 128, {"layers": 2, "heads": 2}),
    "transformer-small": Preset("text: BERT with 4 layers of 256", "text", 256, {"layers": 4, "heads": 4}),
    "transformer-base": Preset("text: BERT with 12 layers of 768", "text", 768, {"layers": 12, "heads": 12}),
    "mlp-tiny": Preset("tables: 2 residual blocks of 128", "table", 64, {"width": 128, "depth": 2}),
    "mlp-small": Preset("tables: 3 residual blocks of 256", "table", 128, {"width": 256, "depth": 3}),
    "mlp-base": Preset("tables: 4 residual blocks of 512", "table", 256, {"width": 512, "depth": 4}),
}
"""Presets by name."""

_DEFAULTS: dict[Modality, str] = {"image": "conv-tiny", "text": "transformer-tiny", "table": "mlp-tiny"}


def default_model(modality: Modality) -> str:
    """The preset that "auto" stands for.

    Example:
        >>> default_model("image")
        'conv-tiny'
    """
    return _DEFAULTS[modality]


def find_preset(name: str, modality: Modality) -> Preset:
    """The preset of a name, for a modality.

    Raises:
        ValueError: If there is none, or it is for another modality; the message names those that there are.
    """
    fitting = [each for each, preset in PRESETS.items() if preset.modality == modality]
    preset = PRESETS.get(default_model(modality) if name == "auto" else name)
    if preset is None:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        disk = " or a folder with a transformer" if modality == "text" else ""
        raise ValueError(f"there is no model {name!r}{meant} (for {modality}: auto, {', '.join(fitting)}{disk})")
    if preset.modality != modality:
        raise ValueError(
            f"model {name!r} is for {preset.modality} data, these are {modality}: use {', '.join(fitting)}"
        )
    return preset
