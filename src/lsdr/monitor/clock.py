"""Two clocks: the processor's, and a GPU's without waiting for it."""

import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class Clock(Protocol):
    """Marks moments, and says how much time lies between two of them."""

    def mark(self) -> Any:
        """This moment."""
        ...

    def between(self, start: Any, end: Any) -> float | None:
        """Seconds from one moment to another; None while the device has not got there."""
        ...


class HostClock:
    """The processor's clock.

    Args:
        now: Gives seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now

    def mark(self) -> float:
        """This moment."""
        return self._now()

    def between(self, start: float, end: float) -> float | None:
        """Seconds from one moment to another."""
        return end - start


class CudaClock:
    """A GPU's clock: events in its queue, read when they have passed, so that nothing ever waits for them.

    A time that the GPU spends idle, because the processor is measuring instead of feeding it, lies between two events
    as well: what is measured is by how much training is held up.
    """

    def mark(self) -> torch.cuda.Event:
        """This moment in the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float | None:
        """Seconds from one event to another; None while the second has not passed."""
        return start.elapsed_time(end) / 1e3 if end.query() else None


def clock_of(device: torch.device) -> Clock:
    """The clock that tells how long work on this device takes."""
    return CudaClock() if device.type == "cuda" else HostClock()
