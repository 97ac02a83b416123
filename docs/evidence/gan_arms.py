"""Arms of docs/evidence/gan.md for `lsdr compare gan`: `gan_arms:packing@4`; `gan_arms:tuned_arms.packing` as tuned.

Every arm is one of `lsdr compare gan`, with one number to tune or none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsdr.experiments.gan_methods import GAN_METHODS
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.runs import read_json

TUNED = Path(__file__).parent / "results" / "gan-tuned.json"


@dataclass(frozen=True)
class Number:
    """What is tuned of an arm beside its learning rate."""

    options: tuple[str, ...]
    """The options that it sets; a regularizer's bound is none of them."""
    values: tuple[float, ...]
    """Those that are tried; the middle one comes first."""


_BOUND = Number((), (1.0, 2.0, 4.0))
_GAMMA = Number(("r1", "r2"), (3e-4, 3e-3, 3e-2))
_STEPS = Number(("denoising_steps",), (2, 4, 8))
NUMBERS: dict[str, Number | None] = {
    "baseline": None,
    "clip": Number(("clip",), (0.1, 1.0, 10.0)),
    "weight_decay": Number(("weight_decay",), (0.001, 0.01, 0.1)),
    "gan_r1_r2": _GAMMA,
    "relativistic_r1_r2": _GAMMA,
    "packing": Number(("packing",), (2, 4, 8)),
    "standardization": None,
    "spectral_normalization": _BOUND,
    "latent_noise": Number(("noise_largest",), (0.3, 1.0, 3.0)),
    "denoising": _STEPS,
    "adaptive_noise": Number(("noise_target",), (0.0, 0.3, 0.6)),
    "standardization_noise": _STEPS,
    "spectral_noise": _BOUND,
    "fixed_noise": Number(("noise_largest",), (0.5, 1.0, 2.0)),
    "relativistic_r1_r2_fixed_noise": _GAMMA,
}


def arm(name: str) -> Method:
    """An arm at the middle of its numbers, for `@` to set another."""
    method, number = GAN_METHODS[name], NUMBERS[name]
    if number is None:
        return method
    middle = number.values[1]
    if not number.options:
        return replace(resolve(f"{name}@{middle:g}", task="gan"), name=name, number=method.number)
    return replace(
        method, overrides={**method.overrides, **dict.fromkeys(number.options, middle)}, number=number.options
    )


def tuned(name: str) -> Method:
    """An arm at the learning rate and the number that were chosen."""
    chosen = read_json(TUNED)[name]
    spec = f"gan_arms:{name}" if chosen["number"] is None else f"gan_arms:{name}@{chosen['number']:g}"
    method = resolve(spec, task="gan")
    return replace(method, overrides={**method.overrides, "lr": chosen["lr"]})


class _Tuned:
    def __getattr__(self, name: str) -> Callable[[], Method]:
        if name not in NUMBERS:
            raise AttributeError(name)
        return lambda: tuned(name)


def __getattr__(name: str) -> Any:
    if name in NUMBERS:
        return lambda: arm(name)
    raise AttributeError(name)


tuned_arms = _Tuned()
