"""The methods that a comparison can name: each a tuple of regularizers, with options that it sets."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from lsdr.experiments.dotted import load
from lsdr.experiments.gan_methods import GAN_METHODS
from lsdr.experiments.method import Method
from lsdr.experiments.representation_methods import REPRESENTATION_METHODS

# The middle of a UNet; of a transformer, which has no middle block, every block.
_LAYERS = re.compile(r"^(mid_block|transformer_blocks\.\d+)$")


def _decorrelation() -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

    return (SpectralDecorrelation(layers=_LAYERS),)


def _decorrelation_as_written() -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation

    return (SpectralDecorrelation(layers=_LAYERS, form="as_written"),)


def _spectral_normalization() -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_normalization import SpectralNormalization

    return (SpectralNormalization(bound=1.0),)


def _spectral_penalty() -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_penalties import hinge
    from lsdr.regularizers.spectral_penalty import SpectralPenalty

    return (SpectralPenalty(penalty=hinge(1.0), weight=0.1),)


def _discriminator() -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_discriminator import SpectralDiscriminator

    return (SpectralDiscriminator(),)


def _discriminator_learned() -> tuple[Any, ...]:
    from lsdr.regularizers.learned_spectral_discriminator import LearnedSpectralDiscriminator

    return (LearnedSpectralDiscriminator(),)


def _decomposition(**settings: Any) -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_decomposition import SpectralDecomposition

    return (SpectralDecomposition(**settings),)


def _matched(regularizers: tuple[Any, ...]) -> tuple[Any, ...]:
    for regularizer in regularizers:
        if not hasattr(regularizer, "weight"):
            raise ValueError(
                f"weight_decay_matched stands in for a penalty, and {type(regularizer).__name__} is a hard constraint "
                "without one: leave that control out, or compare spectral_penalty"
            )
    from lsdr.regularizers.matched_weight_decay import MatchedWeightDecay

    return (MatchedWeightDecay(regularizers),)


def _with_weight(weight: float, regularizers: tuple[Any, ...]) -> tuple[Any, ...]:
    return _with_number(("weight",), weight, regularizers)


def _with_number(names: Sequence[str], value: float, regularizers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy the regularizers with other values of these fields."""
    for regularizer in regularizers:
        if not is_dataclass(regularizer) or not set(names) <= {each.name for each in fields(regularizer)}:
            raise ValueError(
                f"{regularizer!r} is no dataclass with a field `{names[0]}`, so its {names[0]} cannot be set"
            )
    return tuple(replace(regularizer, **dict.fromkeys(names, value)) for regularizer in regularizers)


METHODS: dict[str, Method] = {
    "baseline": Method(
        name="baseline",
        description="Plain training: no regularizer.",
        number=(),
    ),
    "decorrelation": Method(
        name="decorrelation",
        description="Spectral decorrelation of the middle block's features: correlations off the diagonal go to zero, "
        "a hinge keeps the variances.",
        build=_decorrelation,
    ),
    "decorrelation_as_written": Method(
        name="decorrelation_as_written",
        description="Spectral decorrelation by the formula as written: the whole covariance, diagonal included, so it "
        "also shrinks the variances.",
        build=_decorrelation_as_written,
    ),
    "spectral_normalization": Method(
        name="spectral_normalization",
        description="A hard bound: after every step no weight, as a matrix, has a spectral norm above 1.",
        build=_spectral_normalization,
        number=("bound",),
    ),
    "spectral_penalty": Method(
        name="spectral_penalty",
        description="A soft bound: weights with a spectral norm above 1 pay its excess, squared; the others nothing.",
        build=_spectral_penalty,
    ),
    "discriminator": Method(
        name="discriminator",
        description="Radial power spectrum of the clean estimate against the one that the best estimate has at that "
        "noise level: differences beyond the spread between real images pay.",
        build=_discriminator,
    ),
    "discriminator_learned": Method(
        name="discriminator_learned",
        description="A small network learns to tell the power spectra of clean estimates from those of real images; "
        "the estimates pay for being told apart.",
        build=_discriminator_learned,
    ),
    "decomposition_eigenvalues": Method(
        name="decomposition_eigenvalues",
        description="The mean eigenvalue of a sampler step's Jacobian is held near its running mean at that noise "
        "level.",
        build=partial(_decomposition, of="eigenvalues"),
    ),
    "decomposition_singular": Method(
        name="decomposition_singular",
        description="The root mean square of the singular values of a sampler step's Jacobian is held near its "
        "running mean at that noise level.",
        build=partial(_decomposition, of="singular_values"),
    ),
    "operator_hinge": Method(
        name="operator_hinge",
        description="The largest eigenvalue of a sampler step's Jacobian pays its excess over 1, squared; the best "
        "denoiser of data in clusters has such ones too, so where it does this is biased.",
        build=partial(_decomposition, penalty="hinge", k=1, weight=1.0),
    ),
    "operator_asymmetry": Method(
        name="operator_asymmetry",
        description="The antisymmetric part of a sampler step's Jacobian goes to zero, where it is for the best "
        "denoiser: no bias.",
        build=partial(_decomposition, penalty="asymmetry", weight=1.0),
    ),
    "operator_frobenius": Method(
        name="operator_frobenius",
        description="All singular values of a sampler step's Jacobian, and with them its eigenvalues, are made small, "
        "as the claim has it. Biased: what the steps shrink is missing from the variance of the samples.",
        build=partial(_decomposition, of="singular_values", penalty="frobenius", weight=0.1),
    ),
    "clip": Method(
        name="clip",
        description="Control: no regularizer, gradients clipped to norm 1.",
        overrides={"clip": 1.0},
        number=(),
    ),
    "weight_decay_matched": Method(
        name="weight_decay_matched",
        description="Control: an L2 penalty on the weights, as strong at the start as the penalty it stands in for",
        build=lambda: _matched(_decorrelation()),
        mirrors=_matched,
        number=(),
    ),
    "lambda_zero": Method(
        name="lambda_zero",
        description="Control: the same code with the penalty's weight at zero",
        build=lambda: _with_weight(0.0, _decorrelation()),
        mirrors=partial(_with_weight, 0.0),
        number=(),
    ),
}

_CONTROLS = ("baseline", "clip", "weight_decay_matched", "lambda_zero")
_OF_TASK = {"gan": GAN_METHODS, "representation": REPRESENTATION_METHODS}


def methods_of(task: str) -> dict[str, Method]:
    """The methods that a task has by name.

    Example:
        >>> "packing" in methods_of("gan"), "packing" in methods_of("diffusion")
        (True, False)
    """
    return _OF_TASK.get(task, METHODS)


def resolve(spec: str, others: Sequence[str] = (), task: str = "diffusion") -> Method:
    """Find the method that a text names.

    Args:
        spec: A name of `methods_of(task)`; "name@NUMBER" for another weight or whatever its number is; or
            "package.module:function", a function without arguments that returns a tuple of regularizers or a `Method`
            (also with @NUMBER).
        others: The comparison's methods, in order. `lambda_zero` and `weight_decay_matched` are controls of the first
            one that has regularizers of its own, and of `decorrelation` when there is none.
        task: What is trained. Tasks without methods of their own have those of diffusion.

    Returns:
        The method. Its name can be a folder's: in a stranger's function's name the colon becomes a dot.

    Raises:
        ValueError: If there is no such method, or the number is no finite number >= 0 or cannot be set.

    Example:
        >>> resolve("decorrelation@0.30").name
        'decorrelation@0.3'
        >>> resolve("clip").overrides
        {'clip': 1.0}
        >>> resolve("packing@3", task="gan").overrides["packing"]
        3
    """
    name, at, number = spec.partition("@")
    known = methods_of(task)
    if ":" in name:
        method = _strangers(name)
    elif name in known:
        method = known[name]
    else:
        raise ValueError(_unknown(name, task))
    if method.mirrors is not None:
        mirrored = resolve(
            next((each for each in others if each.partition("@")[0] not in _CONTROLS), "decorrelation"), task=task
        )
        method = replace(
            method,
            description=f"{method.description} ({mirrored.name}).",
            build=_composed(method.mirrors, mirrored.build),
        )
    if not at:
        return method
    if not method.number:
        raise ValueError(f"{name} has no weight to set, got {spec!r}; name it without @")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"expected a number >= 0 after @, got {spec!r}; for example {name}@0.3")
    return _numbered(method, value)


def _numbered(method: Method, value: float) -> Method:
    """The method with another number: in its options, where it has them, or else in its regularizers."""
    what = " = ".join(method.number)
    changed = replace(
        method,
        name=f"{method.name}@{value:g}",
        description=f"{method.description.rstrip('.')}; {what} {value:g}.",
    )
    if not set(method.number) <= set(method.overrides):
        return replace(changed, build=_composed(partial(_with_number, method.number, value), method.build))
    whole = all(type(method.overrides[name]) is int for name in method.number)
    if whole and value != int(value):
        raise ValueError(f"{what} of method {method.name} is a whole number, got {value:g}")
    numbers = dict.fromkeys(method.number, int(value) if whole else value)
    return replace(changed, overrides={**method.overrides, **numbers})


def _unknown(name: str, task: str) -> str:
    """What to say of a name that the task has not."""
    known = methods_of(task)
    if others := [each for each in ("diffusion", *_OF_TASK) if name in methods_of(each)]:
        return f"{name!r} is a method of {others[0]}; those of {task} are {', '.join(known)}"
    close = get_close_matches(name, known, n=3) or list(known)
    return (
        f"no method {name!r}; close names: {', '.join(close)}. "
        "A function of yours that returns a tuple of regularizers is named package.module:function"
    )


def _strangers(path: str) -> Method:
    """A method from outside: a function by its dotted path."""
    function = load(path)
    if not callable(function):
        raise ValueError(f"{path} is no function but {function!r}; it must return a tuple of regularizers or a Method")

    def call() -> Any:
        try:
            return function()
        except Exception as error:
            raise ValueError(f"{path} raised {type(error).__name__}: {error}") from error

    def build() -> tuple[Any, ...]:
        regularizers = call()
        if not isinstance(regularizers, tuple) or not all(hasattr(each, "attach") for each in regularizers):
            raise ValueError(f"{path} must return a tuple of regularizers or a Method, got {regularizers!r}")
        return regularizers

    found = call()
    if isinstance(found, Method):
        return found
    description = (function.__doc__ or "").strip().partition("\n")[0] or f"The regularizers that {path} returns."
    return Method(name=re.sub(r"[^\w.-]", ".", path), description=description, build=build)


def _composed(
    change: Callable[[tuple[Any, ...]], tuple[Any, ...]], build: Callable[[], tuple[Any, ...]]
) -> Callable[[], tuple[Any, ...]]:
    return lambda: change(build())
