"""Pairs of networks by name. Imports no torch, so that help text is instant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Normalization = Literal["none", "standardize", "batch", "magnitude_preserving", "fixup"]
"""What keeps a network's activations in hand; a preset's own is called "default"."""

_PLAIN: tuple[Normalization, ...] = ("none", "standardize", "batch", "magnitude_preserving")
_RESIDUAL: tuple[Normalization, ...] = (*_PLAIN, "fixup")
_UNSCALED: tuple[Normalization, ...] = ("none", "standardize", "batch")


@dataclass(frozen=True)
class Preset:
    """A generator and a discriminator that go together."""

    description: str
    data: Literal["points", "images"]
    latent: int | None
    """Dimensions of the generator's latent, unless another number is asked for; None for as many as a point has."""
    generator: Normalization = "none"
    """The generator's own normalisation."""
    discriminator: Normalization = "none"
    """The discriminator's own normalisation."""
    normalizations: tuple[Normalization, ...] = _RESIDUAL
    """Those that either network can have."""
    denoising: bool = True
    """Whether the networks can take a noisy example beside their input."""


PRESETS: dict[str, Preset] = {
    "mlp": Preset("points: two hidden layers of 128, leaky ReLU", "points", None, normalizations=_PLAIN),
    "mlp-deep": Preset(
        "points: eight hidden layers of 96 against five, leaky ReLU", "points", None, normalizations=_PLAIN
    ),
    "mlp-large": Preset("points: three hidden layers of 256, leaky ReLU", "points", None, normalizations=_PLAIN),
    "residual-mlp": Preset("points: four residual blocks of two layers of 128, activations first", "points", None),
    # Lin et al. 2018 (arXiv:1712.04086), with the networks of Dumoulin et al. 2017 (arXiv:1606.00704)
    "pacgan-toy": Preset(
        "points: PacGAN's published networks; 4 x 400 with batch norm against three maxout layers (200, 5 pieces)",
        "points",
        None,
        generator="batch",
        normalizations=_UNSCALED,
        denoising=False,
    ),
    "dcgan": Preset(
        "images: strided 4x4 convolutions, 32 channels at half size and twice as many at each smaller one",
        "images",
        64,
        generator="batch",
        normalizations=_UNSCALED,
    ),
    # Metz et al. 2017 (arXiv:1611.02163), appendix, as PacGAN's code has it
    "stacked-dcgan": Preset(
        "images: the published networks for stacked digits; 287,875 parameters against a quarter-size discriminator",
        "images",
        256,
        generator="batch",
        discriminator="batch",
        normalizations=_UNSCALED,
        denoising=False,
    ),
    "stacked-dcgan-half": Preset(
        "images: the published networks for stacked digits, with the half-size discriminator",
        "images",
        256,
        generator="batch",
        discriminator="batch",
        normalizations=_UNSCALED,
        denoising=False,
    ),
    "resnet-tiny": Preset("images: SN-GAN's residual networks, 32 channels", "images", 64, generator="batch"),
    "resnet-small": Preset("images: SN-GAN's residual networks, 128 channels", "images", 128, generator="batch"),
    "r3gan-tiny": Preset(
        "images: R3GAN's residual blocks, 32 to 64 channels, one block at each size",
        "images",
        64,
        generator="fixup",
        discriminator="fixup",
    ),
    "r3gan-small": Preset(
        "images: R3GAN's residual blocks, 64 to 256 channels, two blocks at each size",
        "images",
        64,
        generator="fixup",
        discriminator="fixup",
    ),
}
"""Presets by name."""


def default_model(shape: Sequence[int]) -> str:
    """The preset for examples of a shape: points (d,) or images (channels, height, width).

    Example:
        >>> default_model((2,)), default_model((3, 32, 32))
        ('mlp-deep', 'r3gan-tiny')
    """
    return "mlp-deep" if len(shape) == 1 else "r3gan-tiny"


def find_preset(name: str, data: Literal["points", "images"]) -> Preset:
    """The preset of a name, for examples of a kind.

    Raises:
        ValueError: If there is none, or it is for the other kind; the message names those that there are.
    """
    fitting = [each for each, preset in PRESETS.items() if preset.data == data]
    if name not in PRESETS:
        raise ValueError(f"there is no model {name!r}; for {data} there are {', '.join(fitting)}")
    if PRESETS[name].data != data:
        raise ValueError(f"model {name!r} is for {PRESETS[name].data}, not {data}: use {', '.join(fitting)}")
    return PRESETS[name]


def chosen_normalization(name: str, player: Literal["generator", "discriminator"], asked: str) -> Normalization:
    """What "default" stands for, or what was asked for if the preset has it.

    Raises:
        ValueError: If the preset has no such normalisation.

    Example:
        >>> chosen_normalization("resnet-tiny", "generator", "default")
        'batch'
    """
    preset = PRESETS[name]
    own = preset.generator if player == "generator" else preset.discriminator
    for each in preset.normalizations:
        if each == (own if asked == "default" else asked):
            return each
    why = " (there are no residual branches in it)" if asked == "fixup" else ""
    known = "" if asked in get_args(Normalization) else f"there is no normalization {asked!r}; "
    raise ValueError(
        f"{known}model {name!r} can have default ({own}), {', '.join(preset.normalizations)} in its {player}, "
        f"not {asked!r}{why}"
    )
