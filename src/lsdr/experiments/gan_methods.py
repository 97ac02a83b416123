"""The methods that a comparison of GANs can name: arms. Imports no torch; building a method does."""

from collections.abc import Callable
from functools import partial
from typing import Any

from lsdr.experiments.method import Method

GAN_PLAIN: dict[str, Any] = {
    "loss": "non_saturating",
    "r1": 0.0,
    "r2": 0.0,
    "packing": 1,
    "consistency": 0.0,
    "mode_seeking": 0.0,
    "normalization": "default",
    "discriminator_normalization": "default",
    "discriminator_noise": False,
    "noise_strength": None,
    "generator_noise": "none",
}
"""The plain GAN that every arm is built on: Goodfellow et al.'s non-saturating loss, no penalty, no noise, the model as
its preset has it. Every arm sets all of these, so that it is the same whatever the options say. Where an arm has R1 or
R2 without a number, the weight None is that for the kind of data."""

_NOISE_AT_DISCRIMINATOR = {"discriminator_noise": True}
_FIXED_NOISE = {**_NOISE_AT_DISCRIMINATOR, "noise_strength": 1.0, "noise_clean": 0.0}
_NOISE_IN_DATA_SPACE = {"generator_noise": "data"}


def _spectral_normalization(layers: str) -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_normalization import SpectralNormalization

    return (SpectralNormalization(layers=layers, bound=1.0),)


def _residual_spectral() -> tuple[Any, ...]:
    from lsdr.regularizers.residual_normalization import ResidualNormalization

    return (ResidualNormalization(branches="*branch", bound=2.0),)


def _spectral_penalty() -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_penalties import hinge
    from lsdr.regularizers.spectral_penalty import SpectralPenalty

    return (SpectralPenalty(penalty=hinge(1.0), weight=0.1),)


def _arm(
    name: str,
    description: str,
    options: dict[str, Any] | None = None,
    build: Callable[[], tuple[Any, ...]] = tuple,
    number: tuple[str, ...] = (),
) -> Method:
    return Method(name, description, build, {**GAN_PLAIN, **(options or {})}, number=number)


_ARMS = (
    Method("options", "What the options say, and nothing else.", number=()),
    _arm("baseline", "Plain GAN: the non-saturating loss, no penalty, no noise, the model as its preset has it."),
    _arm("clip", "Control: the plain GAN, each player's gradient clipped to norm 1.", {"clip": 1.0}, number=("clip",)),
    _arm(
        "weight_decay",
        "Control: the plain GAN with AdamW's weight decay of 0.01 in both players.",
        {"weight_decay": 0.01},
        number=("weight_decay",),
    ),
    _arm("hinge", "The hinge loss in place of the non-saturating one.", {"loss": "hinge"}),
    _arm(
        "relativistic",
        "Relativistic pairing (RpGAN): the discriminator judges each generated example against a real one. No penalty.",
        {"loss": "relativistic"},
    ),
    _arm(
        "gan_r1",
        "Plain GAN with R1: the discriminator's gradients at real examples are penalised.",
        {"r1": None},
        number=("r1",),
    ),
    _arm(
        "gan_r1_r2",
        "Plain GAN with R1 and R2: gradients at real and at generated examples are penalised.",
        {"r1": None, "r2": None},
        number=("r1", "r2"),
    ),
    _arm(
        "relativistic_r1",
        "Relativistic pairing with R1.",
        {"loss": "relativistic", "r1": None},
        number=("r1",),
    ),
    _arm(
        "relativistic_r1_r2",
        "Relativistic pairing with R1 and R2: R3GAN's objective.",
        {"loss": "relativistic", "r1": None, "r2": None},
        number=("r1", "r2"),
    ),
    _arm(
        "packing",
        "PacGAN: the discriminator judges 2 examples at a time, as one, and so sees that they are alike.",
        {"packing": 2},
        number=("packing",),
    ),
    _arm(
        "consistency",
        "The discriminator pays where its answer changes when an image is shifted and mirrored, or a point moved a "
        "little; weight 10.",
        {"consistency": 10.0},
        number=("consistency",),
    ),
    _arm(
        "mode_seeking",
        "The generator pays for latents far apart that give examples close together (MSGAN); weight 1.",
        {"mode_seeking": 1.0},
        number=("mode_seeking",),
    ),
    _arm(
        "spectral_normalization",
        "A hard bound in both players: after every turn no weight, as a matrix, has a spectral norm above 1.",
        build=partial(_spectral_normalization, "*"),
        number=("bound",),
    ),
    _arm(
        "spectral_normalization_discriminator",
        "A hard bound in the discriminator alone: no weight, as a matrix, has a spectral norm above 1.",
        build=partial(_spectral_normalization, "discriminator.*"),
        number=("bound",),
    ),
    _arm(
        "residual_spectral",
        "A hard bound of whole residual blocks in both players, without normalisation: none has a Lipschitz constant "
        "above 2 beside its shortcut's. Needs a model of residual blocks.",
        {"normalization": "none", "discriminator_normalization": "none"},
        _residual_spectral,
        ("bound",),
    ),
    _arm(
        "spectral_penalty",
        "A soft bound in both players: weights with a spectral norm above 1 pay its excess, squared.",
        build=_spectral_penalty,
        number=("weight",),
    ),
    _arm(
        "standardization",
        "The generator's activations are standardised, as the claim has it: less the layer's mean, over its standard "
        "deviation.",
        {"normalization": "standardize"},
    ),
    _arm(
        "standardization_both",
        "Both players' activations are standardised.",
        {"normalization": "standardize", "discriminator_normalization": "standardize"},
    ),
    _arm(
        "magnitude_preserving",
        "Both players' weights are normalised, and sums scaled, so that activations keep their size (EDM2).",
        {"normalization": "magnitude_preserving", "discriminator_normalization": "magnitude_preserving"},
    ),
    _arm(
        "fixup",
        "No normalisation in either player; residual branches begin at zero, scaled by depth (Fixup).",
        {"normalization": "fixup", "discriminator_normalization": "fixup"},
    ),
    _arm(
        "latent_noise",
        "Noise at the generator's input, in its latent, with the variance preserved: the prior is what it was.",
        {"generator_noise": "latent"},
    ),
    _arm(
        "denoising",
        "Noise at the generator's input, in data space: it denoises a diffused example, in steps (DDGAN).",
        _NOISE_IN_DATA_SPACE,
    ),
    _arm(
        "adaptive_noise",
        "Noise at the discriminator's input, on real and generated examples alike, as strong as its overfitting asks "
        "for.",
        _NOISE_AT_DISCRIMINATOR,
    ),
    _arm(
        "fixed_noise",
        "Noise at the discriminator's input, always at its strongest, on every example: levels log-uniform over all.",
        _FIXED_NOISE,
    ),
    _arm(
        "relativistic_r1_r2_noise",
        "Relativistic pairing with R1 and R2, and adaptive noise at the discriminator's input.",
        {"loss": "relativistic", "r1": None, "r2": None, **_NOISE_AT_DISCRIMINATOR},
        number=("r1", "r2"),
    ),
    _arm(
        "relativistic_r1_r2_fixed_noise",
        "Relativistic pairing with R1 and R2, and noise at the discriminator's input, always at its strongest.",
        {"loss": "relativistic", "r1": None, "r2": None, **_FIXED_NOISE},
        number=("r1", "r2"),
    ),
    _arm(
        "standardization_noise",
        "The claim's combination: the generator's activations standardised, and noise at its input in data space.",
        {"normalization": "standardize", **_NOISE_IN_DATA_SPACE},
    ),
    _arm(
        "spectral_noise",
        "Spectral norms of both players held at or under 1, and adaptive noise at the discriminator's input.",
        _NOISE_AT_DISCRIMINATOR,
        partial(_spectral_normalization, "*"),
        number=("bound",),
    ),
)

GAN_METHODS: dict[str, Method] = {method.name: method for method in _ARMS}
