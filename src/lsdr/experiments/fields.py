"""Configuration dataclasses as plain JSON values, and back."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_dict(value: Any) -> Any:
    """Turn a configuration into what JSON can hold: dataclasses become dicts, tuples lists, paths strings.

    Example:
        >>> from lsdr.training.config import TrainingConfig
        >>> to_dict(TrainingConfig(trackers=("wandb",)))["trackers"]
        ['wandb']
    """
    if is_dataclass(value):
        return {field.name: to_dict(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from `to_dict`'s values, checking names and types on the way.

    Args:
        kind: The dataclass.
        values: Field values; fields with defaults may be missing.
        where: Dotted prefix of the field names in error messages.

    Returns:
        An instance; its own checks have run.

    Raises:
        ValueError: If a field is unknown, missing, or of the wrong type.

    Example:
        >>> from lsdr.training.config import TrainingConfig
        >>> from_dict(TrainingConfig, {"steps": 5, "betas": [0.9, 0.95]}).betas
        (0.9, 0.95)
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            close = get_close_matches(name, known) or sorted(known)
            raise ValueError(f"{kind.__name__} has no field {where + name!r}; close names: {', '.join(close)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{kind.__name__} needs the field {where + name!r}, which is missing")
    return kind(**{name: _convert(hints[name], value, where + name) for name, value in values.items()})


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List what differs between two plain values, a line for each field: what it was, what it is.

    Example:
        >>> differences({"lr": 0.1, "training": {"steps": 5}}, {"lr": 0.1, "training": {"steps": 7}})
        ['training.steps was 5, is 7']
    """
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [] if before == now else [f"{where} was {before!r}, is {now!r}"]
    lines = []
    for name in dict.fromkeys([*before, *now]):
        path = f"{where}.{name}" if where else name
        if name not in now:
            lines.append(f"{path} was {before[name]!r}, is absent")
        elif name not in before:
            lines.append(f"{path} was absent, is {now[name]!r}")
        else:
            lines += differences(before[name], now[name], path)
    return lines


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Turn a plain value into what a field's annotation says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _convert(choice, value, where)
            except ValueError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        items = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
        if len(items) == len(value):
            return tuple(
                _convert(item, part, f"{where}[{k}]") for k, (item, part) in enumerate(zip(items, value, strict=True))
            )
    elif origin is list and isinstance(value, list | tuple):
        return [_convert(arguments[0], part, f"{where}[{k}]") for k, part in enumerate(value)]
    elif origin is dict and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    elif is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_dict(hint, value, f"{where}.")
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int to Python; a configuration means them apart.
    elif isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) <= (hint is bool):
        return value
    expected = hint.__name__ if isinstance(hint, type) and not arguments else str(hint).replace("typing.", "")
    raise ValueError(f"{where} must be {expected}, got {value!r}")
