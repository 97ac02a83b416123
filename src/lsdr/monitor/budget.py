"""Which layers a turn may measure, so that all of it stays within a share of training time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lsdr.monitor.clock import Clock
from lsdr.monitor.ledger import Expense, Ledger

# Costs are estimates: aiming lower leaves room for those that turn out dearer.
_AIM = 0.8
# No turn costs more than this many steps, but for a single layer that does.
_LONGEST_TURN = 3.0
# A cost that surprises is divided among the layers of its turn; those that had no part in it must not look dear for
# long, so a known cost grows by no more than this at once.
_GROWTH = 4.0
# What a layer costs whatever its size, in weights.
_FIXED = 10_000


class Unit(NamedTuple):
    """The smallest thing that a turn measures or leaves: a layer of a probe, or a probe that knows no layers."""

    name: str
    probe: str
    size: int
    hooked: bool
    """Whether the step that it is measured in needs hooks, for which the step pays once."""


class Spent(NamedTuple):
    """What watching has cost so far."""

    share: float
    """Seconds of measuring per second of training."""
    seconds: float
    """Seconds of measuring."""
    turns: int
    """Turns in which something was measured."""
    layers_per_turn: float
    """Layers that a turn measured, on average."""


class Budget:
    """Plans turns from what the last ones cost.

    What may be spent grows with training time: credit = 0.8 share x training - spent. A turn takes the layers that
    have waited longest, as many as credit pays for, at most three steps' worth; none if credit does not pay for one.
    So turns hold fewer layers first and become rarer then, and a change of the steps' duration needs no rule of its
    own. A layer that costs more than three steps alone waits until credit pays for it, and half of what comes in is
    kept for it meanwhile. The first turn takes one layer of each probe, of median size, to learn what measuring costs.

    Args:
        share: Seconds of measuring per second of training; None: no limit, all layers in each turn.
        units: What there is to measure.
        clock: The device's clock.
    """

    def __init__(self, share: float | None, units: Sequence[Unit], clock: Clock):
        self.share, self.units, self.ledger = share, list(units), Ledger(clock)
        self.turns = 0
        self._measured = 0
        self._last = [-1] * len(self.units)  # when each was measured last, counted in layers measured
        self._cost: list[float | None] = [None] * len(self.units)
        self._rate: dict[str, float] = {}  # of each probe: seconds per weight of layers measured for the first time
        self._again: dict[str, float] = {}  # and what measuring a second time costs, relative to the first
        self._left = 0.0  # credit after the last plan
        self._times: list[int] = [0] * len(self.units)  # how often the cost of each became known

    def enter(self) -> None:
        """A step begins; learn what the last ones cost."""
        for expense in self.ledger.enter():
            self._learn(expense)

    def plan(self) -> list[int]:
        """Choose this turn's units, by index, in the order of the units."""
        if self.share is None:
            return list(range(len(self.units)))
        step = self.ledger.median_step
        if self.turns == 0:
            return self._one_of_each_probe()
        credit = _AIM * self.share * self.ledger.training - self.ledger.own
        if step is None or credit <= 0:
            return []
        longest = _LONGEST_TURN * step
        queue = sorted(range(len(self.units)), key=lambda unit: self._last[unit])  # stable: the model's order
        chosen: list[int] = []
        allowance, remaining = min(credit, longest), credit
        head = self._price(queue[0], longest, chosen)
        if head > longest:
            if head <= credit:
                chosen.append(queue.pop(0))
                remaining -= head
                allowance = min(remaining, longest)
            else:
                allowance = min(allowance, max(credit - self._left, 0.0) / 2)
        for unit in queue:
            price = self._price(unit, longest, chosen)
            if price > longest:
                continue
            if price > allowance:
                break
            chosen.append(unit)
            allowance, remaining = allowance - price, remaining - price
        self._left = remaining
        return sorted(chosen)

    def took(self, chosen: Sequence[int]) -> None:
        """These units are measured in this turn."""
        for unit in sorted(chosen, key=lambda unit: self._last[unit]):
            self._last[unit] = self._measured
            self._measured += 1
        self.turns += 1

    def spent(self) -> Spent:
        """What watching has cost so far."""
        training, own = self.ledger.so_far()
        turns = self.turns
        return Spent(own / training if training > 0 else 0.0, own, turns, self._measured / turns if turns else 0.0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, fit for JSON."""
        known = zip(self._last, self._cost, self._times, strict=True)
        return {
            **self.ledger.state(),
            "turns": self.turns,
            "measured": self._measured,
            "left": self._left,
            "rate": dict(self._rate),
            "again": dict(self._again),
            "units": {unit.name: list(each) for unit, each in zip(self.units, known, strict=True)},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there; layers that are new are measured first."""
        self.ledger.restore(state)
        self.turns, self._measured, self._left = state["turns"], state["measured"], state["left"]
        self._rate, self._again = dict(state["rate"]), dict(state["again"])
        for index, unit in enumerate(self.units):
            known = state["units"].get(unit.name, (-1, None, 0))
            self._last[index], self._cost[index], self._times[index] = known

    def _one_of_each_probe(self) -> list[int]:
        chosen = []
        for probe in sorted({unit.probe for unit in self.units}):
            of_probe = [index for index, unit in enumerate(self.units) if unit.probe == probe]
            chosen.append(sorted(of_probe, key=lambda index: self.units[index].size)[len(of_probe) // 2])
        return sorted(chosen)

    def _price(self, index: int, unknown: float, chosen: Sequence[int]) -> float:
        """What a unit adds to a turn of those chosen: its own cost, and that of hooks if it is the first with hooks."""
        first = self.units[index].hooked and not any(self.units[other].hooked for other in chosen)
        return self._expected(index, unknown) + (self.ledger.excess if first else 0.0)

    def _expected(self, index: int, unknown: float) -> float:
        unit = self.units[index]
        known = self._cost[index]
        if known is not None:
            return known
        rate = self._rate.get(unit.probe)
        return unknown if rate is None else rate * _weight(unit)

    def _learn(self, expense: Expense) -> None:
        """Divide what some units cost together among them, in proportion to what was expected of each."""
        if not expense.units:
            return
        expected = {unit: max(self._expected(unit, float(_weight(self.units[unit]))), 1e-9) for unit in expense.units}
        ratio = expense.seconds / sum(expected.values())
        probe = self.units[expense.units[0]].probe
        first = [unit for unit in expense.units if self._times[unit] == 0]
        second = [unit for unit in expense.units if self._times[unit] == 1]
        if first:
            seconds = ratio * sum(expected[unit] for unit in first)
            self._rate[probe] = seconds / sum(_weight(self.units[unit]) for unit in first)
        if second and len(second) == len(expense.units):
            self._again[probe] = min(self._again.get(probe, 1.0) * ratio, 1.0)
        for unit in expense.units:
            # A first time is dearer than those that follow: by how much, others have told.
            known = self._again.get(probe, 1.0) * ratio if self._times[unit] == 0 else min(ratio, _GROWTH)
            self._cost[unit] = known * expected[unit]
            self._times[unit] += 1


def _weight(unit: Unit) -> int:
    return unit.size + _FIXED
