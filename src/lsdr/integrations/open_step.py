"""A monitor's step for loops that call back at its two ends."""

from contextlib import AbstractContextManager, suppress

from lsdr.monitor.monitor import Monitor


class _AbandonedError(Exception):
    """The loop ended within a step."""


class OpenStep:
    """Holds `monitor.at(step)` open from one call to another."""

    def __init__(self) -> None:
        self._context: AbstractContextManager[bool] | None = None

    def begin(self, monitor: Monitor, step: int) -> None:
        """A step begins, unless one is open: chunks of an accumulated gradient belong to one step."""
        if self._context is None:
            context = monitor.at(step)
            context.__enter__()
            self._context = context

    def end(self) -> None:
        """The step is over: measure, if it is one for measuring."""
        context, self._context = self._context, None
        if context is not None:
            context.__exit__(None, None, None)

    def abandon(self) -> None:
        """The step never ended: leave no hook behind."""
        context, self._context = self._context, None
        if context is not None:
            with suppress(_AbandonedError):
                context.__exit__(_AbandonedError, _AbandonedError(), None)
