"""Things by dotted path: "package.module:name"."""

import importlib
import sys
from pathlib import Path
from typing import Any


def load(path: str) -> Any:
    """Import what "package.module:name" names; modules in the working folder are found too.

    Args:
        path: Module and name, separated by a colon; the name may have dots.

    Returns:
        The object.

    Raises:
        ValueError: If the path has no colon, the module cannot be found, or it has no such name.

    Example:
        >>> load("math:sqrt")(9.0)
        3.0
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"expected package.module:name, got {path!r}")
    folder = str(Path.cwd())
    # A console script does not look in the working folder, `python -m` does; a path must mean the same to both.
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        value = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise  # the module is there, and something that it needs is missing
        raise ValueError(
            f"no module {error.name!r} for {path!r}: install it, or start from the folder that holds it"
        ) from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise ValueError(f"{module_name} has no {name!r}; expected package.module:name, got {path!r}")
        value = getattr(value, part)
    return value


def dotted(thing: Any) -> str:
    """Return the path by which `load` finds a class or function.

    Example:
        >>> from fractions import Fraction
        >>> dotted(Fraction)
        'fractions:Fraction'
    """
    return f"{thing.__module__}:{thing.__qualname__}"
