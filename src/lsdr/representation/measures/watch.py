"""Notice while an encoder trains that it learns its examples by heart. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PROBES = ("linear_probe", "knn")


@dataclass
class OverfittingWatch:
    """Compares the objective on training examples with that on held-out ones, and a probe with its best.

    It speaks, once for each signal, when for `patience` evaluations in a row
    - "heldout_objective": the held-out objective is above its least by more than `rise` of how far it had fallen, while
      that of training examples is at or below where it was then;
    - "linear_probe" or "knn": the accuracy of the probe on held-out examples is below its best by more than `fall`.

    Objectives of both parts must be of as many examples, for objectives of moments depend on their number.

    Args:
        rise: Share of the fall that may be lost.
        fall: Accuracy that may be lost.
        patience: Evaluations.

    Example:
        >>> watch = OverfittingWatch(patience=1)
        >>> values = [(4.0, 4.0), (2.0, 3.0), (1.0, 3.5)]
        >>> events = [watch({"train_objective": a, "heldout_objective": b}, k) for k, (a, b) in enumerate(values)]
        >>> [len(each) for each in events], events[-1][0]["signal"]
        ([0, 0, 1], 'heldout_objective')
    """

    rise: float = 0.1
    fall: float = 0.05
    patience: int = 3
    _first: float | None = field(default=None, init=False, repr=False)
    _least: tuple[float, float, int] = field(default=(math.inf, math.inf, 0), init=False, repr=False)
    _best: dict[str, tuple[float, int]] = field(default_factory=dict, init=False, repr=False)
    _above: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _told: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("rise", "fall"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        if self.patience < 1:
            raise ValueError(f"patience must be a number of evaluations, 1 or more, got {self.patience}")

    def __call__(self, values: Mapping[str, float], step: int) -> list[dict[str, Any]]:
        """Take what was evaluated, and say what there is to say.

        Args:
            values: By name: "train_objective" and "heldout_objective", "linear_probe" or "knn" are read.
            step: After which step.

        Returns:
            Events: "kind" ("overfitting"), "signal", "step", "value", "best", "best_step", "message".
        """
        found = [self._objective(values, step), *(self._probe(name, values, step) for name in _PROBES)]
        return [event for event in found if event is not None]

    def _objective(self, values: Mapping[str, float], step: int) -> dict[str, Any] | None:
        train, heldout = (values.get(name, math.nan) for name in ("train_objective", "heldout_objective"))
        if not (math.isfinite(train) and math.isfinite(heldout)):
            return None
        if self._first is None:
            self._first = heldout
        if heldout < self._least[0]:
            self._least = heldout, train, step
        least, then, at = self._least
        lost = heldout - least > self.rise * (self._first - least) and train <= then and at != step
        message = (
            f"the encoder learns its examples by heart: the held-out objective was {least:.4g} at step {at} and is "
            f"{heldout:.4g} now, while that of training examples went from {then:.4g} to {train:.4g}. Use the weights "
            f"of about step {at}, stronger views or more examples"
        )
        return self._judge("heldout_objective", lost, heldout, least, at, step, message)

    def _probe(self, name: str, values: Mapping[str, float], step: int) -> dict[str, Any] | None:
        value = values.get(name, math.nan)
        if not math.isfinite(value):
            return None
        best, at = self._best.get(name, (-math.inf, step))
        if value > best:
            best, at = self._best[name] = value, step
        message = (
            f"the codes lose what they knew of the classes: {'the linear' if name == 'linear_probe' else 'the kNN'} "
            f"probe told {best:.1%} of the held-out examples right at step {at} and {value:.1%} now. Use the weights "
            f"of about step {at}; the views may take away what tells the classes apart"
        )
        return self._judge(name, best - value > self.fall, value, best, at, step, message)

    def _judge(
        self, signal: str, lost: bool, value: float, best: float, at: int, step: int, message: str
    ) -> dict[str, Any] | None:
        self._above[signal] = self._above.get(signal, 0) + 1 if lost else 0
        if signal in self._told or self._above[signal] < self.patience:
            return None
        self._told.add(signal)
        event = {"kind": "overfitting", "signal": signal, "step": step, "value": value, "best": best, "best_step": at}
        return {**event, "message": message}
