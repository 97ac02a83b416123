"""Names of weights: less what wrappers put in, and paired with their moving averages."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"}
# A module called `module` that is the only one of its parent is a wrapper (DataParallel, AveragedModel, ...).
_BESIDE_MODULE = {"n_averaged"}
_AVERAGES = ("ema", "ema_model", "model_ema", "params_ema", "state_dict_ema", "averaged_model", "average")
_ONLINE = ("model", "online_model", "params", "state_dict", "online", "net", "module", "")


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names as the plain model has them, for every stored name.

    Left out are the wrappers of `torch.compile`, DataParallel, FSDP and peft's base layers wherever they stand, and
    "parametrizations": "_orig_mod.up.parametrizations.weight.original" is "up.weight". The two halves of a weight norm
    ("original0", "original1") keep their last part; see `weight_norms`. "model.", "first_stage_model." and prefixes of
    components are kept: they say which model. Where two stored names would become one, both stay as they are.

    Example:
        >>> plain_names(["module.0.weight", "module._orig_mod.1.parametrizations.weight.original"])
        {'module.0.weight': '0.weight', 'module._orig_mod.1.parametrizations.weight.original': '1.weight'}
    """
    names = list(names)
    parts = {name: [part for part in name.split(".") if part not in _WRAPPERS] for name in names}
    children: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for each in parts.values():
        for depth, part in enumerate(each[:-1]):
            children[tuple(each[:depth])].add(part)
        children[tuple(each[:-1])].add(each[-1] if each else "")
    wrapping = {path for path, inner in children.items() if inner - _BESIDE_MODULE == {"module"}}
    plain = {name: ".".join(_without_parametrization(_without_module(each, wrapping))) for name, each in parts.items()}
    count = Counter(plain.values())
    return {name: short if count[short] == 1 and short else name for name, short in plain.items()}


def weight_norms(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The weights that are stored as magnitude and direction: {plain name of the weight: (magnitude, direction)}.

    Both ways of torch: "weight_g" with "weight_v", and "parametrizations.weight.original0" with "original1".
    """
    found: dict[str, tuple[str, str]] = {}
    plain = plain_names(names)
    stored = {short: name for name, short in plain.items()}
    for short, name in stored.items():
        for magnitude, direction in ((".original0", ".original1"), ("_g", "_v")):
            whole = short.removesuffix(magnitude)
            if whole != short and whole + direction in stored:
                found[whole] = (name, stored[whole + direction])
    return found


def ema_pairs(names: Iterable[str]) -> dict[str, str]:
    """Online weights and their moving averages, where both are there: {online name: average's name}.

    Known are the prefixes of common training scripts ("ema.", "ema_model.", "params_ema.", "unet_ema.", ...), also
    behind the name of a component, and CompVis checkpoints, whose averages are called as the online weights without
    their dots: "model.diffusion_model.out.2.weight" and "model_ema.diffusion_modelout2weight".

    Example:
        >>> ema_pairs(["model.0.weight", "ema.0.weight", "model.step"])
        {'model.0.weight': 'ema.0.weight'}
    """
    plain = plain_names(names)
    stored = {short: name for name, short in plain.items()}
    compvis = _without_dots(stored)
    pairs: dict[str, str] = {}
    for short, name in stored.items():
        for online in (*_online_names(short), compvis.get(short, "")):
            if online and online in stored and online != short and not _is_average(online):
                pairs.setdefault(stored[online], name)
                break
    order = {name: place for place, name in enumerate(plain)}
    return dict(sorted(pairs.items(), key=lambda pair: order[pair[0]]))


def _without_module(parts: list[str], wrapping: set[tuple[str, ...]]) -> list[str]:
    last = len(parts) - 1
    return [
        part
        for depth, part in enumerate(parts)
        if part != "module" or depth == last or tuple(parts[:depth]) not in wrapping
    ]


def _without_parametrization(parts: list[str]) -> list[str]:
    if len(parts) > 2 and parts[-3] == "parametrizations" and parts[-1].startswith("original"):
        return [*parts[:-3], parts[-2], *([] if parts[-1] == "original" else parts[-1:])]
    return parts


def _is_average(name: str) -> bool:
    return any(part in _AVERAGES or part.endswith("_ema") for part in name.split(".")[:2])


def _online_names(name: str) -> Iterator[str]:
    """What the weight could be called of which this is the average; nothing if the name is not of an average."""
    parts = name.split(".")
    for depth in range(min(2, len(parts) - 1)):
        part = parts[depth]
        if part not in _AVERAGES and not part.endswith("_ema"):
            continue
        counterparts = [part.removesuffix("_ema")] if part.endswith("_ema") else []
        for other in (*counterparts, *(_ONLINE if part in _AVERAGES else ())):
            yield ".".join([*parts[:depth], *([other] if other else []), *parts[depth + 1 :]])


def _without_dots(names: Iterable[str]) -> dict[str, str]:
    """Averages' names in CompVis checkpoints, for every online name; those that two weights would share left out."""
    online: dict[str, str] = {}
    shared: set[str] = set()
    for name in names:
        head, found, rest = name.rpartition("model.diffusion_model.")
        if not found or (head and not head.endswith(".")):
            continue
        average = f"{head}model_ema." + ("diffusion_model." + rest).replace(".", "")
        shared |= {average} & online.keys()
        online[average] = name
    return {average: name for average, name in online.items() if average not in shared}
