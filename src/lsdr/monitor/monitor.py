"""Probes on a schedule, sent to any log function, within a budget."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn

from lsdr.monitor import ranks
from lsdr.monitor.budget import Budget, Spent, Unit
from lsdr.monitor.clock import clock_of
from lsdr.monitor.measured import flat_values
from lsdr.monitor.probe import Probe, Read, attached, has_hooks, narrow, prefix_of, probe_layers
from lsdr.probes.nothing import LayersNotMeasuredError, NothingMeasuredError
from lsdr.probes.tracked import TrackedWeightProbe

Log = Callable[[dict[str, float], int], None]


class Monitor:
    """Measures a model while it trains, now and then, and leaves the training bitwise as it would have been.

    Values go to `log` by flat names: `weights/<layer>/sigma_max`, `features/<layer>/effective_rank`,
    `gradients/<layer>/norm`, ..., and with each turn

    - `<kind>/largest_change`: the largest relative change of a value since its layer was measured last;
    - `monitor/layers`, `monitor/seconds`, `monitor/share`: layers measured in this turn, seconds spent on measuring
      since the start, and these seconds per second of training.

    Measuring thins itself to stay within `budget`: a turn takes the layers that have waited longest, as many as the
    budget pays for, and is left out if it pays for none (see `Budget`). So one turn may hold a few layers only, and
    the first holds one of each probe. `monitor.values` always has every layer's newest values.

    Hooks exist only within `at`, only in a turn, and only for probes that watch the model run (features, attention).
    For these a turn runs without the compiler (`torch.compiler.set_stance("force_eager")`), since hooks added to a
    model that is compiled already never fire: the step then differs from a compiled one by rounding. Weights and
    gradients need neither.

    With several processes, make the monitor and call `at` on each, as for any other part of a step. Replicated
    weights are measured on the first process alone. Sharded weights, and features, need all: the first one's clock
    decides for them, features are those of all processes' rows, and only the first logs.

    Args:
        model: Plain, compiled or wrapped; an averaged copy is as good. Names are those of the plain model.
        probes: What to measure: probes of LSDR, functions of the model that return numbers by name, objects with
            `attach(model)`, a context manager that yields a function returning them. A mapping names what the names
            of their values begin with. None: the largest singular value and stable rank of all weights, tracked.
        every: Steps from turn to turn.
        log: Called with values and the step; None: the values are only kept.
        budget: Seconds of measuring per second of training; None: all layers in each turn, whatever it costs.

    Raises:
        ValueError: If a probe's layers are not in the model, or two probes have the same name.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> monitor = Monitor(model, every=10, budget=None, log=lambda values, step: print(step, sorted(values)[-3]))
        >>> for step in range(20):
        ...     with monitor.at(step):
        ...         _ = model(torch.zeros(5, 3))
        0 weights/0/stable_rank
        10 weights/2/sigma_max
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Sequence[Probe] | Mapping[str, Probe] | None = None,
        every: int = 100,
        log: Log | None = None,
        budget: float | None = 0.01,
    ):
        if every < 1:
            raise ValueError(f"every must be a number of steps, 1 or more, got {every}")
        if budget is not None and not 0 < budget < 1:
            raise ValueError(f"budget must be a share of training time between 0 and 1, or None, got {budget}")
        self.model, self.every, self.log = model, every, log
        self.values: dict[str, float] = {}
        """Newest values of all layers."""
        self._probes = _named([TrackedWeightProbe()] if probes is None else probes)
        self._units, self._layers = _units(self._probes, model)
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self._budget = Budget(budget, self._units, clock_of(device))
        self._told: set[str] = set()
        self._measured_at: int | None = None
        self._together: bool | None = None

    @contextmanager
    def at(self, step: int) -> Iterator[bool]:
        """Hold a step's forward pass, and with it backward and the optimiser's step if you like.

        What watches the model run watches all forwards inside; weights and gradients are read on leaving, so backward
        must be inside for gradients, and `zero_grad()` outside. Call it in every step: the steps between turns say
        how long a step takes. A step that raises is not measured.

        Args:
            step: The step's number; a number that was just measured is not measured again.

        Yields:
            Whether this process measures in this step.
        """
        self._budget.enter()
        chosen = self._choose(step)
        try:
            if not chosen:
                yield False
                self._budget.ledger.leave()
                return
            hooked = any(self._units[index].hooked for index in chosen)
            with ExitStack() as stack:
                if hooked:
                    self._without_compiler(stack)
                parts = [
                    (key, units, stack.enter_context(attached(self._part(key, units), self.model)))
                    for key, units in self._by_probe(chosen).items()
                ]
                self._budget.ledger.start(hooked=hooked)
                yield True
                self._budget.ledger.leave()
                values: dict[str, float] = {}
                for key, units, read in parts:
                    with self._budget.ledger.spend(tuple(units)):
                        values |= self._read(key, units, read)
            self._budget.took(chosen)
            self._measured_at = step
            self._report(values, len(chosen), step)
        except BaseException:
            self._budget.ledger.abandon()
            raise

    @property
    def spent(self) -> Spent:
        """What watching has cost so far: share of training time, seconds, turns, layers per turn."""
        return self._budget.spent()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run goes on with the schedule.

        Returns:
            "numbers", fit for JSON, and "tensors" by name: the tracked vectors, which are no part of the model's own
            state.
        """
        tensors = {
            f"{key}/{name}": tensor
            for key, (_, probe) in self._probes.items()
            if hasattr(probe, "state_dict")
            for name, tensor in probe.state_dict().items()
        }
        numbers = {"budget": self._budget.state(), "values": dict(self.values), "measured_at": self._measured_at}
        return {"numbers": numbers, "tensors": tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; layers that it does not know are measured first."""
        numbers = state["numbers"]
        self._budget.restore(numbers["budget"])
        self.values, self._measured_at = dict(numbers["values"]), numbers["measured_at"]
        for key, (_, probe) in self._probes.items():
            if hasattr(probe, "load_state_dict"):
                start = f"{key}/"
                own = {n.removeprefix(start): t for n, t in state["tensors"].items() if n.startswith(start)}
                probe.load_state_dict(own)

    def _choose(self, step: int) -> list[int]:
        if step % self.every or step == self._measured_at:
            return []
        if ranks.world_size() == 1:
            return self._budget.plan()
        if self._together is None:
            self._together = ranks.is_sharded(self.model) or any(unit.hooked for unit in self._units)
        planned = self._budget.plan() if ranks.is_main() else []
        return ranks.agree(planned, len(self._units)) if self._together else planned

    def _by_probe(self, chosen: Sequence[int]) -> dict[str, list[int]]:
        parts: dict[str, list[int]] = {}
        for index in chosen:
            parts.setdefault(self._units[index].probe, []).append(index)
        return parts

    def _part(self, key: str, units: Sequence[int]) -> Probe:
        """The probe for these layers."""
        _, probe = self._probes[key]
        names = [self._layers[index] for index in units]
        return probe if names == [None] else narrow(probe, [str(name) for name in names])

    def _read(self, key: str, units: Sequence[int], read: Read) -> dict[str, float]:
        prefix, probe = self._probes[key]
        names = [name for index in units if (name := self._layers[index]) is not None]
        measured: dict[str, Any] = {}
        try:
            measured = dict(read())
            absent = [name for name in names if name not in measured]
            if absent and has_hooks(probe):
                self._tell(key, f"layers that did not run in a measured step: {', '.join(absent)}")
        except NothingMeasuredError as error:  # said and not raised: training may well go on without
            self._tell(key, f"{', '.join(names)}: {error}")
        except LayersNotMeasuredError as error:
            self._tell(key, str(error))
            measured = dict(error.measured)
        except ValueError as error:
            # One layer that cannot be measured must not hide the others.
            self._tell(key, str(error))
            measured = {} if has_hooks(probe) else self._one_by_one(probe, names)
        if self._together and has_hooks(probe):
            measured = ranks.merge_moments(measured, names)
        return flat_values(measured, prefix)

    def _one_by_one(self, probe: Probe, names: Sequence[str]) -> dict[str, Any]:
        measured: dict[str, Any] = {}
        for name in names:
            with suppress(ValueError):
                measured |= narrow(probe, [name])(self.model)
        return measured

    def _report(self, values: dict[str, float], layers: int, step: int) -> None:
        if not ranks.is_main():
            return
        values |= _largest_changes(values, self.values)
        self.values |= values
        spent = self.spent
        own = {"monitor/layers": layers, "monitor/seconds": spent.seconds, "monitor/share": spent.share}
        if self.log is not None:
            self.log({**values, **{name: float(value) for name, value in own.items()}}, step)

    def _without_compiler(self, stack: ExitStack) -> None:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in self.model.modules()):
            self._tell(
                "compiled",
                "the model is compiled, and the monitor's features need hooks, which do not fire in compiled code: "
                "steps in which it measures run without the compiler, so they are slower and differ by rounding",
            )

    def _tell(self, about: str, message: str) -> None:
        """Warn once about each thing."""
        if about not in self._told:
            self._told.add(about)
            warnings.warn(f"monitor, {about}: {message}", RuntimeWarning, stacklevel=2)


def _named(probes: Sequence[Probe] | Mapping[str, Probe]) -> dict[str, tuple[str, Probe]]:
    """Probes by a name of their own, with what the names of their values begin with."""
    if isinstance(probes, Mapping):
        return {name: (name, probe) for name, probe in probes.items()}
    named: dict[str, tuple[str, Probe]] = {}
    for number, probe in enumerate(probes):
        prefix = prefix_of(probe)
        key = prefix or f"probe {number}"
        if key in named:
            raise ValueError(
                f"two probes would log under {prefix!r}: name them, as in Monitor(model, {{'name': probe, ...}})"
            )
        named[key] = prefix, probe
    return named


def _units(probes: Mapping[str, tuple[str, Probe]], model: nn.Module) -> tuple[list[Unit], list[str | None]]:
    """What there is to measure, and the name of each one's layer."""
    units: list[Unit] = []
    layers: list[str | None] = []
    for key, (_, probe) in probes.items():
        found = probe_layers(probe, model)
        for name, module in [(None, model)] if found is None else found.items():
            size = sum(parameter.numel() for parameter in module.parameters())
            units.append(Unit(key if name is None else f"{key}/{name}", key, size, has_hooks(probe)))
            layers.append(name)
    return units, layers


def _largest_changes(values: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Of each kind the largest relative change of a value that was measured before."""
    changes: dict[str, float] = {}
    for name, value in values.items():
        old = before.get(name, 0.0)
        if old and "/" in name:
            key = f"{name.split('/')[0]}/largest_change"
            changes[key] = max(changes.get(key, 0.0), abs(value / old - 1))
    return changes
