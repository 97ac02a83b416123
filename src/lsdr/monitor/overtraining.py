"""Says when a fine-tune begins to overtrain, from what the monitor measures and from a held-out loss."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Signal:
    """How often in a row a signal was above its threshold, and whether that was said."""

    above: int = 0
    told: bool = False


@dataclass
class Overtraining:
    r"""Warns once by each of four signs of overtraining, after `patience` measurements in a row above its threshold.

    - **held-out loss** :math:`L_t` (`rise`): :math:`L_t / \min_{s \le t} L_s - 1`. This is what overtraining means.
    - **attention logits** (`logits`): the geometric mean over layers of `logit_rms`, of the newest value over the
      layer's first one. Layers with two measurements count, once at least half of them have two.
    - **size** (`size`): the root mean square over layers of `sigma_over_base`, the largest singular value of what an
      adapter adds over that of the weight that it is added to.
    - **directions** (`directions`): `new_directions`, the mean over layers: of the ten largest directions of the
      changed weight those that the base has not and hardly uses.

    All are relative to the base or to the start, without units, so that no learning rate, rank or alpha is in them. A
    fine-tune on enough images moves away from its base too, and the last three know nothing of images that were not
    trained on: their thresholds are where healthy runs seldom come, and they miss most of what overtrains. Without a
    held-out loss take a warning for a reason to look at samples, and silence for nothing.

    Measured on 64 short LoRA fine-tunes of a small network on 4 to 400 digits, 32 of them healthy and 28 that overtrain
    by 5 % or more (benchmarks/overtraining_false_positives.py; 95 % intervals), thresholds chosen on 19 others:

    ====================== ===================== ======================== ===================
    signal                 false alarms per run  hits                     median delay, steps
    ====================== ===================== ======================== ===================
    held-out loss          0 of 32 (0 to 11 %)   28 of 28 (88 to 100 %)   25, one measurement
    attention logits       0 of 32 (0 to 11 %)   1 of 28 (0 to 18 %)      50
    size                   0 of 32 (0 to 11 %)   5 of 28 (6 to 37 %)      225 of 300
    directions             0 of 32 (0 to 11 %)   3 of 28 (2 to 28 %)      200 of 300
    all but held-out loss  0 of 32 (0 to 11 %)   5 of 28 (6 to 37 %)      175 of 300
    ====================== ===================== ======================== ===================

    Lower thresholds find more and cry wolf: `size=0.5` finds 23 with 8 false alarms, `logits=1.25` 16 with 4,
    `directions=0.1` 8 with none. Nothing was measured at the size of Stable Diffusion, nor on full fine-tunes.

    Values that are missing or not finite are passed over, so that it can be called with whatever was measured: the
    monitor's values at some steps, held-out losses at others. What it remembers follows from the values alone: to
    resume, call it again with those that were recorded.

    Source: the growth of attention logits before failure, Dehghani et al. 2023 (arXiv:2302.05442) and Zhai et al. 2023
    (arXiv:2303.06296); intruder dimensions and forgetting, Shuttleworth et al. 2024 (arXiv:2410.21228); the norms of
    the change as users of LoRA trainers watch them. The rule is ours.

    Args:
        rise: Of the held-out loss above its least so far, relatively; None leaves the signal out, as for the others.
        logits: How many times their first value attention logits may be.
        size: See above.
        directions: See above, 0 to 10.
        patience: Measurements in a row that must be above.
        held_out: Name of the held-out loss among the values.

    Raises:
        ValueError: If a threshold is out of range.

    Example:
        >>> warn = Overtraining(patience=2)
        >>> for step, loss in enumerate([0.5, 0.4, 0.41, 0.44, 0.45]):
        ...     for event in warn({"heldout_loss": loss}, step):
        ...         print(event["step"], event["signal"], round(event["value"], 3))
        3 held_out_loss 0.1
    """

    rise: float | None = 0.02
    logits: float | None = 1.5
    size: float | None = 1.0
    directions: float | None = 0.2
    patience: int = 2
    held_out: str = "heldout_loss"
    _best: tuple[float, int] = field(default=(math.inf, 0), init=False, repr=False)
    _first: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _newest: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _again: set[str] = field(default_factory=set, init=False, repr=False)
    _signals: dict[str, _Signal] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("rise", 0), ("logits", 1), ("size", 0), ("directions", 0)):
            threshold = getattr(self, name)
            if threshold is not None and not (math.isfinite(threshold) and threshold > least):
                raise ValueError(f"{name} must be a finite number above {least}, or None, got {threshold}")
        if self.patience < 1:
            raise ValueError(f"patience must be a number of measurements, 1 or more, got {self.patience}")

    def __call__(self, values: Mapping[str, float], step: int) -> list[dict[str, Any]]:
        """Take what was measured, and say what there is to say.

        Args:
            values: By name, as the monitor logs them ("lora/<layer>/sigma_over_base", ...), the held-out loss, or both.
            step: In which step.

        Returns:
            Events: "kind" ("overtraining"), "signal", "step", "value", "threshold" and a "message".
        """
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        events = [
            self._held_out_loss(values, step),
            self._of_layers(values, step, "attention_logits", "/logit_rms", self.logits, self._growth, _LOGITS),
            self._of_layers(values, step, "size", "/sigma_over_base", self.size, self._root_mean_square, _SIZE),
            self._of_layers(values, step, "directions", "/new_directions", self.directions, self._mean, _DIRECTIONS),
        ]
        return [event for event in events if event is not None]

    def _held_out_loss(self, values: Mapping[str, float], step: int) -> dict[str, Any] | None:
        loss = values.get(self.held_out)
        if self.rise is None or loss is None or loss <= 0:
            return None
        if loss < self._best[0]:
            self._best = loss, step
        least, at = self._best
        message = (
            f"the held-out loss is {loss / least - 1:.1%} above its least, {least:.4g} at step {at}: the fine-tune has "
            f"begun to overtrain. Take a checkpoint from about step {at}, or train on more images or with a lower rate"
        )
        return self._judge("held_out_loss", loss / least - 1, self.rise, step, message)

    def _of_layers(
        self,
        values: Mapping[str, float],
        step: int,
        signal: str,
        ending: str,
        threshold: float | None,
        statistic: Callable[[str], float | None],
        message: str,
    ) -> dict[str, Any] | None:
        """A signal that is a mean over layers of values that end so."""
        new = {name: value for name, value in values.items() if name.endswith(ending)}
        if threshold is None or not new:
            return None
        for name, value in new.items():
            if name in self._first:
                self._again.add(name)
            self._first.setdefault(name, value)
            self._newest[name] = value
        found = statistic(ending)
        return None if found is None else self._judge(signal, found, threshold, step, message.format(value=found))

    def _judge(self, signal: str, value: float, threshold: float, step: int, message: str) -> dict[str, Any] | None:
        state = self._signals.setdefault(signal, _Signal())
        state.above = state.above + 1 if value > threshold else 0
        if state.told or state.above < self.patience:
            return None
        state.told = True
        event = {"kind": "overtraining", "signal": signal, "step": step, "value": value, "threshold": threshold}
        return {**event, "message": message}

    def _all(self, ending: str) -> list[str]:
        return [name for name in self._newest if name.endswith(ending)]

    def _growth(self, ending: str) -> float | None:
        known = self._all(ending)
        names = [name for name in known if name in self._again and self._first[name] > 0 and self._newest[name] > 0]
        if 2 * len(names) < len(known) or not names:
            return None
        return math.exp(sum(math.log(self._newest[name] / self._first[name]) for name in names) / len(names))

    def _root_mean_square(self, ending: str) -> float:
        newest = [self._newest[name] for name in self._all(ending)]
        return math.sqrt(sum(value**2 for value in newest) / len(newest))

    def _mean(self, ending: str) -> float:
        newest = [self._newest[name] for name in self._all(ending)]
        return sum(newest) / len(newest)


_LOOK = ". Look at samples of what was not trained on: an earlier checkpoint, fewer steps or a lower rate may be better"
_LOGITS = "attention logits are {value:.2f} times what they were at first, as in fine-tunes that overtrain" + _LOOK
_SIZE = "what the adapter adds is {value:.2f} times as large as the weights that it is added to" + _LOOK
_DIRECTIONS = "on average {value:.2f} of a layer's ten largest directions are new to the base" + _LOOK
