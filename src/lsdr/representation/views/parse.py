"""Reading which transformations make a view: "rotation:30,blur,package.module:function". Free of torch."""

import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lsdr.representation.views.catalogue import DEFAULTS, TRANSFORMATIONS


@dataclass(frozen=True)
class Part:
    """One transformation of a view.

    Attributes:
        name: As in `TRANSFORMATIONS`, or the path of a function of the user's.
        strength: Of what is named, None for a function.
        function: The user's, or None.
    """

    name: str
    strength: float | None = None
    function: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return self.name if self.strength is None else f"{self.name}:{self.strength:g}"


def parse(
    spec: str | Sequence[str | Callable[..., Any]], modality: str, default: str | None = None
) -> tuple[Part, ...]:
    """The transformations that a text or a list names, in their order.

    Args:
        spec: Names with commas between, each with ":strength" or without, in which case it has its default strength;
            "package.module:function" is a function of the user's. Or a list of such and of functions. "default", or
            nothing at all, stands for what the modality has by default.
        modality: "image", "text" or "table".
        default: What "default" stands for; None is `DEFAULTS` of the modality.

    Returns:
        One part or more.

    Raises:
        ValueError: If a name or strength is not among those that there are, or a function cannot be found.
        TypeError: If something else than texts and functions is given.

    Example:
        >>> [str(part) for part in parse("rotation:30, blur", "image")]
        ['rotation:30', 'blur:1']
    """
    if modality not in TRANSFORMATIONS:
        raise ValueError(f"expected a modality among {', '.join(TRANSFORMATIONS)}, got {modality!r}")
    words: list[str | Callable[..., Any]] = []
    for item in [spec] if isinstance(spec, str) else spec:
        words += item.split(",") if isinstance(item, str) else [item]
    parts: list[Part] = []
    for word in words or ["default"]:
        if not isinstance(word, str):
            parts.append(_own(word))
        elif word.strip() in ("", "default"):
            if word.strip() == "" and len(words) > 1:
                raise ValueError(f"expected a transformation between every two commas, got {spec!r}")
            parts += parse(default or DEFAULTS[modality], modality)
        else:
            parts.append(_named(word.strip(), modality))
    return tuple(parts)


def kind_strength(name: str, strength: float | str | None, modality: str) -> float:
    """The strength of a transformation that is named, checked.

    Raises:
        ValueError: If there is no such transformation for the modality, or the strength is no number in its range.
    """
    kinds = TRANSFORMATIONS[modality]
    if name not in kinds:
        raise ValueError(_unknown(name, modality))
    kind = kinds[name]
    try:
        value = kind.default if strength is None else float(strength)
    except ValueError:
        raise ValueError(f"expected {name}:NUMBER, such as {name}:{kind.default:g}, got {name}:{strength}") from None
    if not 0 < value <= kind.largest:
        unit = f" {kind.unit}" if kind.unit else ""
        advice = f"; leave {name} out to have none" if value == 0 else ""
        raise ValueError(
            f"the strength of {name} ({kind.description}) must be above 0 and at most {kind.largest:g}{unit}, got "
            f"{value:g}{advice}"
        )
    return value


def _named(word: str, modality: str) -> Part:
    name, colon, strength = (piece.strip() for piece in word.partition(":"))
    own = colon and name not in TRANSFORMATIONS[modality] and all(p.isidentifier() for p in strength.split("."))
    if own and not _is_number(strength):
        return _own(_load(name, strength), f"{name}:{strength}")
    return Part(name, kind_strength(name, strength if colon else None, modality))


def _is_number(text: str) -> bool:
    try:
        float(text)  # "nan" and "inf" would pass for names of functions
    except ValueError:
        return False
    return True


def _own(function: Any, path: str = "") -> Part:
    if not callable(function):
        what = f"{path} is" if path else "got"
        raise TypeError(f"expected names of transformations and functions of your own; {what} {function!r}")
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", type(function).__qualname__)
    return Part(path or f"{module}:{name}", function=function)


def _load(module: str, name: str) -> Any:
    folder = str(Path.cwd())
    # A console script does not look in the working folder, `python -m` does; a path must mean the same to both.
    if folder not in sys.path:
        sys.path.append(folder)
    path = f"{module}:{name}"
    try:
        return pkgutil.resolve_name(path)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # the module is there, and something that it needs is missing
        known = [each for kinds in TRANSFORMATIONS.values() for each in kinds]
        close = get_close_matches(module, known, n=3)
        meant = f"; or did you mean {' or '.join(close)}, with a number as its strength?" if close else ""
        raise ValueError(
            f"no module {error.name!r} for {path!r}: install it, or start from the folder that holds it{meant}"
        ) from error
    except (AttributeError, ValueError) as error:
        raise ValueError(f"expected package.module:function, got {path!r}: {error}") from error


def _unknown(name: str, modality: str) -> str:
    kinds = TRANSFORMATIONS[modality]
    elsewhere = [other for other, theirs in TRANSFORMATIONS.items() if name in theirs]
    close = get_close_matches(name, kinds, n=3)
    if elsewhere:
        reason = f"{name} is for {' and '.join(elsewhere)} data, and this is {modality} data"
    else:
        reason = f"no transformation {name!r}" + (f"; close: {', '.join(close)}" if close else "")
    return f"{reason}. There are for {modality} data: {', '.join(kinds)}, and package.module:function for your own"
