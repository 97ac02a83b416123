"""The state dicts in whatever a training script saved: nested, several at once, beside counters and optimisers."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

_DEEPEST = 8
# A small pickle can refer to one dictionary from very many places.
_MOST = 300_000
_INSIDE = object()
_NESTED = (Tensor, Mapping, list, tuple)
# What training scripts keep beside the weights, as tensors too.
_TRAINING_STATE = re.compile(
    r"(optim|lr_sched|scheduler|(grad_|amp_|native_amp_)?scaler|rng|random|callbacks|loops|hyper_parameters|hparams|args)",
    re.I,
)


@dataclass
class Collected:
    """Named tensors, plain values as text, and what was left out."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def collect_tensors(value: Any, size: int) -> Collected:
    """Find the tensors in what `torch.load` gave.

    A tensor's name is the path of keys to it, less the part that all of them share: {"state_dict": {"a": t}} is "a",
    {"model": {"a": t}, "ema": {"a": s}} is "model.a" and "ema.a". Optimiser states and other training state are left
    out, and so are tensors that are not stored as their numbers in order (sparse, quantised).

    Args:
        value: What the file holds.
        size: Size of the file: a tensor that claims more is a view that repeats its numbers, and is left out.
    """
    result = Collected()
    if not isinstance(value, Mapping | list | tuple):
        value = {"tensor" if isinstance(value, Tensor) else type(value).__name__: value}
    found: dict[tuple[str, ...], Tensor] = {}
    other: dict[str, None] = {}  # a set in order
    odd: dict[str, None] = {}
    for path, leaf in islice(_walk(value, (), (), other), _MOST):
        if leaf is _INSIDE:
            continue
        if not isinstance(leaf, Tensor):
            other[".".join(path[:2])] = None
            if len(path) == 1 and isinstance(leaf, int | float | str) and len(str(leaf)) < 200:
                result.metadata[path[0]] = str(leaf)
        elif leaf.layout != torch.strided or leaf.is_quantized or leaf.is_meta or leaf.numel() * leaf.itemsize > size:
            odd[".".join(path)] = None
        else:
            found[path] = leaf.detach()
    found = _without_counters(found, other)
    shared = _shared(list(found))
    for path, tensor in found.items():
        name = ".".join(path[shared:])
        if name in result.tensors:
            result.notes.append(f"two tensors are called {name!r}; the second was left out")
        else:
            result.tensors[name] = tensor
    if other:
        result.notes.append(f"left out what is no weight: {_listed(other)}")
    if odd:
        result.notes.append(f"left out tensors that are not stored as plain numbers: {_listed(odd)}")
    return result


def _walk(
    value: Any, path: tuple[str, ...], around: tuple[int, ...], other: dict[str, None]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Leaves with their paths. A pickle may contain itself: what it is inside of is left out."""
    if id(value) in around or len(path) > _DEEPEST:
        other[".".join(path[:2])] = None
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, each in items:
        inner = (*path, str(key))
        if not isinstance(each, Mapping | list | tuple):
            yield inner, each
        elif _TRAINING_STATE.match(str(key)) and not path:
            other[str(key)] = None
        elif isinstance(each, list | tuple) and not any(isinstance(one, _NESTED) for one in each):
            yield inner, each  # numbers, say, in one piece
        else:
            yield inner, _INSIDE
            yield from _walk(each, inner, (*around, id(value)), other)


def _without_counters(found: dict[tuple[str, ...], Tensor], other: dict[str, None]) -> dict[tuple[str, ...], Tensor]:
    """Leave out single numbers on the outermost level when the weights are deeper: steps and losses."""
    if all(len(path) == 1 for path in found):
        return found
    counters = [path for path, tensor in found.items() if len(path) == 1 and tensor.numel() <= 1]
    if len(counters) < sum(len(path) == 1 for path in found):
        return found
    other.update((path[0], None) for path in counters)
    return {path: tensor for path, tensor in found.items() if len(path) > 1}


def _shared(paths: list[tuple[str, ...]]) -> int:
    """How many keys all paths have in common, the last one of each apart."""
    if not paths:
        return 0
    count = 0
    shortest = min(len(path) for path in paths) - 1
    while count < shortest and len({path[count] for path in paths}) == 1:
        count += 1
    return count


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest
