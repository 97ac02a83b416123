"""What training took, and what watching it took."""

import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lsdr.monitor.clock import Clock

# A pause between two steps (an evaluation, a checkpoint) counts as no more than this many steps of training, so that
# it buys no burst of measuring.
_LONGEST_STEP = 10.0
# Durations remembered for the medians, how many make a median, and how often the median is taken anew.
_REMEMBERED, _FEW, _REFRESH = 64, 3, 16


class Expense(NamedTuple):
    """Seconds that went into measuring some units; no units: into choosing them."""

    units: tuple[int, ...]
    seconds: float


@dataclass
class _Step:
    """Marks of one step: entered, the loop's own work begun and ended, and what was measured after it."""

    enter: Any
    start: Any = None
    leave: Any = None
    hooked: bool = False
    expenses: list[tuple[tuple[int, ...], Any, Any]] = field(default_factory=list)
    following: Any = None


class Ledger:
    """Adds up seconds of training and of measuring, from marks that a device may still have to reach.

    A step lasts from one `enter` to the next, less what was measured in it. Hooks and eager execution are paid inside
    the loop's own work: a step that has them is compared with the median of those that have not.

    Args:
        clock: Marks moments.
    """

    def __init__(self, clock: Clock):
        self.clock = clock
        self.training = 0.0
        """Seconds of training so far, measuring left out."""
        self.own = 0.0
        """Seconds of measuring so far."""
        self.excess = 0.0
        """Seconds that hooks added to the last step that had them."""
        self._open: _Step | None = None
        self._pending: deque[_Step] = deque()
        self._steps: deque[float] = deque(maxlen=_REMEMBERED)
        self._bodies: deque[float] = deque(maxlen=_REMEMBERED)
        self._seen = 0
        self._former_step: float | None = None
        self._medians: tuple[float, float] | None = None

    def enter(self) -> list[Expense]:
        """A step begins, and the one before it ends; gives the expenses that became known."""
        now = self.clock.mark()
        if self._open is not None and self._open.leave is not None:
            self._open.following = now
            self._pending.append(self._open)
        self._open = _Step(now, start=now)
        return self._settle()

    def start(self, *, hooked: bool) -> None:
        """Choosing and attaching is over; the loop's own work begins."""
        if self._open is not None:
            self._open.start, self._open.hooked = self.clock.mark(), hooked
            self._open.expenses.append(((), self._open.enter, self._open.start))

    def leave(self) -> None:
        """The loop's own work is over."""
        if self._open is not None:
            self._open.leave = self.clock.mark()

    def abandon(self) -> None:
        """The step failed and counts for nothing."""
        self._open = None

    @contextmanager
    def spend(self, units: tuple[int, ...]) -> Iterator[None]:
        """What happens inside is measuring these units."""
        before = self.clock.mark()
        try:
            yield
        finally:
            if self._open is not None:
                self._open.expenses.append((units, before, self.clock.mark()))

    def so_far(self) -> tuple[float, float]:
        """Seconds of training and of measuring, with as much of the steps under way as is known."""
        training, own = self.training, self.own
        for step in [*self._pending, *([self._open] if self._open is not None else [])]:
            body = None if step.leave is None else self.clock.between(step.start, step.leave)
            training += body or 0.0
            own += sum(self.clock.between(before, after) or 0.0 for _, before, after in step.expenses)
        return training, own

    @property
    def median_step(self) -> float | None:
        """Median seconds of a step's training; None before the first step has ended."""
        return statistics.median(self._steps) if self._steps else self._former_step

    def _settle(self) -> list[Expense]:
        known: list[Expense] = []
        while self._pending:
            step = self._pending[0]
            whole = self.clock.between(step.enter, step.following)
            if whole is None:
                break
            self._pending.popleft()
            expenses = [Expense(units, self.clock.between(a, b) or 0.0) for units, a, b in step.expenses]
            known += expenses
            own = sum(expense.seconds for expense in expenses)
            body = self.clock.between(step.start, step.leave) or 0.0
            median_step, median_body = self._typical()
            if step.hooked:
                self.excess = max(0.0, body - median_body) if len(self._bodies) >= _FEW else 0.0
                own += self.excess
            else:
                self._bodies.append(body)
            training = max(whole - own, 0.0)
            self._steps.append(training)
            self._seen += 1
            self.own += own
            self.training += min(training, _LONGEST_STEP * median_step) if len(self._steps) > _FEW else training
        return known

    def _typical(self) -> tuple[float, float]:
        if self._medians is None or len(self._steps) < _REFRESH or self._seen % _REFRESH == 0:
            self._medians = (
                statistics.median(self._steps) if self._steps else 0.0,
                statistics.median(self._bodies) if self._bodies else 0.0,
            )
        return self._medians

    def state(self) -> dict[str, float | None]:
        """What a checkpoint keeps."""
        return {"training": self.training, "own": self.own, "excess": self.excess, "step": self.median_step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there; how long a step takes is learnt anew, perhaps on another machine."""
        self.training, self.own, self.excess = state["training"], state["own"], state["excess"]
        self._former_step = state["step"]
