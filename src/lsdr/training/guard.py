"""Notice in the step it happens that a training run is going wrong."""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Action = Literal["stop", "skip", "rollback", "off"]
Kind = Literal["nonfinite_loss", "nonfinite_gradient", "spike"]


@dataclass(frozen=True)
class Trouble:
    """What the guard saw: which number of which step, its value and the threshold it broke (None if not finite)."""

    kind: Kind
    value: float
    threshold: float | None
    which: Literal["loss", "grad_norm"]
    step: int

    @property
    def message(self) -> str:
        """The same in words."""
        what = "loss" if self.which == "loss" else "gradient norm"
        if self.threshold is None:
            return f"the {what} is {self.value}"
        return f"the {what} jumped to {self.value:.4g}, over its threshold of {self.threshold:.4g}"

    def to_event(self, action: str) -> dict[str, Any]:
        """The record for events.jsonl of what was seen and done; what a diagnosis finds goes on top."""
        return {
            "step": self.step,
            "kind": self.kind,
            "which": self.which,
            "value": self.value,
            "threshold": self.threshold,
            "action": action,
            "message": self.message,
        }


class Guard:
    r"""Watch the loss and the gradient norm of every step for non-finite values and for spikes.

    .. math:: \text{spike:}\quad x_t > c \cdot \operatorname{median}(x_{t-w}, \dots, x_{t-1})

    Two rules. A non-finite value, or a spike of the *loss*, is trouble: `check` returns it and the caller acts as
    `action` says. A spike of the *gradient norm* alone is common, mostly harmless and what clipping is for: it is
    counted in `spikes` and left in `gradient_spike` for the record, and `check` returns None.

    Steps in trouble do not enter the running medians; gradient spikes do, so that a lasting change of scale becomes the
    new normal after half a window. A median that is not positive (an objective that can be negative) has no factor to
    exceed, so there only non-finite values count. In a game every player has medians of its own, and its loss may jump:
    it goes up and down with the opponent. Cost: two medians of `window` floats a step; no tensor is touched.

    Source: none; ten times the running median is how the comparisons count gradient spikes.

    Args:
        action: What the caller is to do about trouble; with "off" `check` counts spikes and always returns None.
        factor: c, greater than 1.
        window: w, steps that the medians run over.
        warmup: Healthy steps to see before anything is called a spike, at most `window`.

    Attributes:
        spikes: Steps so far with a spike of the loss, the gradient norm or both.
        gradient_spike: The gradient spike of the last step checked, if it was one and nothing worse.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> guard = Guard(warmup=3)
        >>> [guard.check(step, 1.0, 0.5) for step in range(3)]
        [None, None, None]
        >>> guard.check(3, 20.0, 0.5)
        Trouble(kind='spike', value=20.0, threshold=10.0, which='loss', step=3)
        >>> guard.check(4, float("nan"), 0.5).message
        'the loss is nan'
    """

    def __init__(self, action: Action = "stop", factor: float = 10.0, window: int = 100, warmup: int = 20) -> None:
        if action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}, got {action!r}")
        if not factor > 1:
            raise ValueError(f"factor must be greater than 1, got {factor}")
        if not 1 <= warmup <= window:
            raise ValueError(f"warmup must be between 1 and window={window}, got {warmup}; the medians need that many")
        self.action, self.factor, self.warmup = action, factor, warmup
        self.spikes = 0
        self.gradient_spike: Trouble | None = None
        self._window = window
        self._losses: dict[str, deque[float]] = {}
        self._grad_norms: dict[str, deque[float]] = {}

    def check(self, step: int, loss: float, grad_norm: float, player: str = "") -> Trouble | None:
        """Judge one step.

        Args:
            step: Which step, for the record; the verdict does not depend on it.
            loss: The step's loss.
            grad_norm: The norm of its gradient before clipping.
            player: Whose loss and gradient these are, in a game of several.

        Returns:
            The trouble that calls for action, or None.
        """
        self.gradient_spike = None
        trouble = _nonfinite(step, loss, grad_norm)
        if trouble is None:
            losses = self._losses.setdefault(player, deque(maxlen=self._window))
            grad_norms = self._grad_norms.setdefault(player, deque(maxlen=self._window))
            trouble = None if player else self._spike(step, loss, losses, "loss")
            gradient_spike = self._spike(step, grad_norm, grad_norms, "grad_norm")
            self.spikes += trouble is not None or gradient_spike is not None
            if trouble is None:
                self.gradient_spike = gradient_spike
                losses.append(loss)
                grad_norms.append(grad_norm)
        return None if self.action == "off" else trouble

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to judge alike, as plain JSON values."""
        return {
            "losses": {player: list(values) for player, values in self._losses.items()},
            "grad_norms": {player: list(values) for player, values in self._grad_norms.items()},
            "spikes": self.spikes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from `state_dict`."""
        for mine, theirs in ((self._losses, state["losses"]), (self._grad_norms, state["grad_norms"])):
            mine.clear()
            mine.update({player: deque(values, maxlen=self._window) for player, values in theirs.items()})
        self.spikes = state["spikes"]
        self.gradient_spike = None

    def _spike(
        self, step: int, value: float, healthy: deque[float], which: Literal["loss", "grad_norm"]
    ) -> Trouble | None:
        if len(healthy) < self.warmup:
            return None
        median = statistics.median(healthy)
        if median <= 0 or value <= self.factor * median:
            return None
        return Trouble("spike", value, self.factor * median, which, step)


def _nonfinite(step: int, loss: float, grad_norm: float) -> Trouble | None:
    if not math.isfinite(loss):  # first: a bad loss makes the gradient bad, not the other way round
        return Trouble("nonfinite_loss", loss, None, "loss", step)
    if not math.isfinite(grad_norm):
        return Trouble("nonfinite_gradient", grad_norm, None, "grad_norm", step)
    return None
