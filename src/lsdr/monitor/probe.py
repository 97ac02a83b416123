"""What the monitor needs of a probe: to know its layers, to narrow it to some of them, to attach it."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from lsdr.layers.select import select_layers

# A probe is a function of the model, or an object with `attach(model)`, a context that yields a function of nothing;
# either function gives a mapping of what was measured (see `flat_values`).
Probe = Any
Read = Callable[[], Mapping[str, Any]]


def probe_layers(probe: Probe, model: nn.Module) -> dict[str, nn.Module] | None:
    """The layers that a probe would measure, by name; None if it measures the model as a whole.

    A probe has layers if it has a method `select(model)`, or is a dataclass with a field `layers` (and perhaps one of
    `types`), as those of LSDR are.
    """
    if hasattr(probe, "select"):
        return dict(probe.select(model))
    if dataclasses.is_dataclass(probe) and hasattr(probe, "layers"):
        return select_layers(model, probe.layers, getattr(probe, "types", ()))
    return None


def narrow(probe: Probe, names: Collection[str]) -> Probe:
    """The same probe for some of its layers: what its method `narrow` gives, or a copy with other `layers`."""
    if hasattr(probe, "narrow"):
        return probe.narrow(names)
    chosen = frozenset(names)
    return dataclasses.replace(probe, layers=lambda name, module: name in chosen)


def has_hooks(probe: Probe) -> bool:
    """Whether a probe watches the model run, instead of reading it when it has run."""
    return hasattr(probe, "attach")


def prefix_of(probe: Probe) -> str:
    """What the names of a probe's values begin with; a user's own probe names its values itself."""
    return str(getattr(probe, "prefix", ""))


@contextmanager
def attached(probe: Probe, model: nn.Module) -> Iterator[Read]:
    """Attach a probe of either form."""
    if has_hooks(probe):
        with probe.attach(model) as read:
            yield read
    elif callable(probe):
        yield lambda: probe(model)
    else:
        raise TypeError(
            f"{probe!r} is not a probe: expected a function of the model that returns numbers by name, or an object "
            "with a method attach(model), a context manager that yields a function returning them"
        )
