"""Choose layers of a model by name: the one way in which every part of LSDR is told where to look."""

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
Layers = str | Sequence[str] | re.Pattern[str] | Callable[[str, nn.Module], bool]


def select_layers(model: nn.Module, layers: Layers, types: tuple[type[nn.Module], ...] = ()) -> dict[str, nn.Module]:
    """Select the submodules of `model` that `layers` names.

    Names are those of `model.named_modules()` with what wrappers add left out: `_orig_mod.` (torch.compile) anywhere,
    `module.` (DistributedDataParallel and its like) at the front. So a pattern that fits a model still fits it
    compiled, wrapped, or both. The model itself has the empty name; globs and regular expressions pass it over
    unless it has no submodules or the glob is the empty string. A module used in two places is listed once.

    Args:
        model: The model to look into.
        layers: A shell glob (`*` crosses dots, as in `fnmatch`), several of them, a compiled regular expression
            (searched for, so anchor it to match whole names), or a predicate of (name, module).
        types: Keep only instances of these classes; empty keeps all.

    Returns:
        Name to module, in the model's order.

    Raises:
        TypeError: If `layers` is none of the four.
        ValueError: If nothing matches; the message lists names that could have been meant, the closest first.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> list(select_layers(model, "*"))
        ['0', '1', '2']
        >>> list(select_layers(model, "*", types=(nn.Linear,)))
        ['0', '2']
    """
    matches = _matcher(layers)
    wrappers = _count_wrappers(model)
    # A wrapped model follows its wrapper under the same name and takes its place.
    named = {_plain_name(name, wrappers): module for name, module in model.named_modules()}
    only_root = len(named) == 1
    candidates = {name: module for name, module in named.items() if not types or isinstance(module, types)}
    selected = {name: module for name, module in candidates.items() if matches(name, module, only_root)}
    if not selected:
        raise ValueError(_no_match(layers, types, candidates, named))
    return selected


def select_called(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Select layers that have outputs: `select_layers` less the lists and dicts of modules, which are never called.

    Raises:
        ValueError: If nothing remains.
    """
    selected = select_layers(model, layers)
    called = {name: module for name, module in selected.items() if not isinstance(module, _CONTAINERS)}
    if not called:
        raise ValueError(f"{layers!r} matches only {', '.join(selected)}, which are never called; name layers inside")
    return called


def select_outermost(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Select layers that have outputs, and of those that one glob matches only the ones not inside another.

    So `"mid_block*"` is the block alone, `"mid_block.*"` its parts; several globs can name both. A regular expression
    or a predicate is taken at its word.

    Raises:
        ValueError: If a glob matches nothing.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 1))
        >>> list(select_outermost(model, "*")), list(select_outermost(model, ["*", "0.*"]))
        (['0', '1'], ['0', '0.0', '0.1', '1'])
    """
    if isinstance(layers, re.Pattern) or callable(layers):
        return select_called(model, layers)
    chosen: set[str] = set()
    for glob in [layers] if isinstance(layers, str) else layers:
        names = list(select_called(model, glob))
        chosen.update(name for name in names if not any(name.startswith(f"{outer}.") for outer in names))
    return {name: module for name, module in select_called(model, layers).items() if name in chosen}


def _matcher(layers: Layers) -> Callable[[str, nn.Module, bool], bool]:
    """Turn the four ways to name layers into one predicate of (name, module, the model is a single module)."""
    if isinstance(layers, re.Pattern):
        expression = layers
        return lambda name, module, only_root: (name != "" or only_root) and expression.search(name) is not None
    if callable(layers):
        predicate = layers
        return lambda name, module, only_root: bool(predicate(name, module))
    globs = [layers] if isinstance(layers, str) else layers
    if not isinstance(globs, Sequence) or not all(isinstance(glob, str) for glob in globs):
        raise TypeError(
            "layers must be a glob, a sequence of globs, a compiled regular expression or a predicate "
            f"(name, module) -> bool, got {layers!r}"
        )
    return lambda name, module, only_root: any(
        fnmatchcase(name, glob) and (name != "" or glob == "" or only_root) for glob in globs
    )


def _count_wrappers(model: nn.Module) -> int:
    """Count the wrappers that call the model `module`; a part of that name tells nothing, a single child does."""
    count = 0
    while True:
        children = dict(model.named_children())
        if len(children) != 1 or not children.keys() <= {"module", "_orig_mod"}:
            return count
        ((name, model),) = children.items()
        count += name == "module"


def _plain_name(name: str, wrappers: int) -> str:
    """Leave out of a module's name what wrappers put in."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while wrappers and parts[:1] == ["module"]:
        parts, wrappers = parts[1:], wrappers - 1
    return ".".join(parts)


def _no_match(
    layers: Layers, types: tuple[type[nn.Module], ...], candidates: dict[str, nn.Module], named: dict[str, nn.Module]
) -> str:
    """Say what was looked for and what there is, the closest names first."""
    wanted = layers.pattern if isinstance(layers, re.Pattern) else layers
    kinds = f" of type {', '.join(kind.__name__ for kind in types)}" if types else ""
    names = [name for name in (candidates or named) if name]
    if not names:
        return f"no layer{kinds} matches {wanted!r}: the model is a single {type(next(iter(named.values()))).__name__}"
    globs = [wanted] if isinstance(wanted, str) else [] if callable(wanted) else list(wanted)
    texts = [glob.replace("*", "") for glob in globs]
    closeness = {name: max((_closeness(name, text) for text in texts), default=0.0) for name in names}
    listed = sorted(names, key=lambda name: -closeness[name])[:10]  # sorted() is stable: ties keep the model's order
    rest = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    if types and not candidates:
        return f"no layer{kinds} in the model at all; it has {', '.join(listed)}{rest}"
    return f"no layer{kinds} matches {wanted!r}; there are {', '.join(listed)}{rest}"


def _closeness(name: str, text: str) -> float:
    return difflib.SequenceMatcher(None, name, text).ratio()
