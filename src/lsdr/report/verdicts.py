"""The verdict tables: every comparison of a method with the baseline, and what the method costs."""

import math
from dataclasses import dataclass

import numpy as np

from lsdr.report.load import Method, Results, Run, plain_name
from lsdr.report.numbers import median, number, percent, signed
from lsdr.report.plain import mappings, scalar

PRIMARY = "heldout_loss"
ENOUGH_SEEDS = 5
"""With n pairs of seeds even n effects of one sign happen by chance in 2 of 2**n cases: 6 % at five."""
COSTS = ("step_seconds", "memory_mb")
_SYMBOLS = {
    "better": ("✓", "better"),
    "worse": ("✗", "worse"),
    "higher": ("↑", "neutral"),
    "lower": ("↓", "neutral"),
}


@dataclass(frozen=True)
class Verdict:
    """One measure of one method against the baseline, ready to be shown."""

    method: str
    measure: str
    label: str
    hint: str
    equal_time: bool
    baseline: float
    value: float
    effect: float
    low: float
    high: float
    relative: float
    verdict: str
    pairs: int

    @property
    def primary(self) -> bool:
        """Whether this is the measure named before the runs as the one that decides."""
        return self.measure == PRIMARY

    @property
    def shown(self) -> bool:
        """Whether a difference was shown."""
        return self.verdict in _SYMBOLS

    @property
    def symbol(self) -> str:
        """A sign for the verdict, for those who do not see its colour."""
        return _SYMBOLS.get(self.verdict, ("–", ""))[0]

    @property
    def tone(self) -> str:
        """The verdict's style class."""
        return _SYMBOLS.get(self.verdict, ("", "none"))[1]

    @property
    def scale(self) -> float:
        """What relative values are relative to; NaN where a relative value would mean nothing."""
        if math.isfinite(self.relative) and math.isfinite(self.effect) and self.relative != 0:
            return self.effect / self.relative
        return abs(self.baseline) if self.baseline != 0 else math.nan

    @property
    def change(self) -> str:
        """The effect in per cent of the baseline, or in the measure's unit where per cent mean nothing."""
        return percent(self.effect / self.scale) if math.isfinite(self.scale) else signed(self.effect)

    @property
    def change_interval(self) -> str:
        """The interval of `change`."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "no interval"
        if math.isfinite(self.scale):
            low, high = sorted((self.low / self.scale, self.high / self.scale))
            return f"{percent(low)} to {percent(high)}"
        return f"{signed(self.low)} to {signed(self.high)}"

    @property
    def absolute(self) -> str:
        """The effect and its interval in the measure's unit."""
        return f"{signed(self.effect)} ({signed(self.low)} to {signed(self.high)})"

    @property
    def values(self) -> tuple[str, str]:
        """Baseline and method as text."""
        return number(self.baseline), number(self.value)


def verdicts(results: Results) -> list[Verdict]:
    """Every comparison of summary.json: by method, the primary measure first, the rest in the measures' own order."""
    order = {name: place for place, name in enumerate([PRIMARY, *results.record.get("measures", {})])}
    methods = {method.name: (place, method) for place, method in enumerate(results.methods)}
    found = []
    for item in mappings(results.summary.get("comparisons")):
        name, measure = str(item.get("measure")), plain_name(str(item.get("measure")))
        if measure.removesuffix("_ratio") in ("step_seconds", "memory") and measure.endswith("_ratio"):
            continue  # the same effect as the plain measure's in per cent
        _, method = methods.get(str(item.get("method")), (0, None))
        against = methods.get(str(item.get("against")), (0, None))[1]
        pairs = scalar(item.get("pairs"))
        baseline = scalar(item.get("baseline"))
        found.append(
            Verdict(
                method=str(item.get("method")),
                measure=measure,
                label=results.label(name),
                hint=_hint(results, name),
                equal_time=name != measure,
                baseline=baseline if math.isfinite(baseline) else _median(against, name, measure),
                value=_median(method, name),
                effect=scalar(item.get("effect")),
                low=scalar(item.get("low")),
                high=scalar(item.get("high")),
                relative=scalar(item.get("relative")),
                verdict=str(item.get("verdict") or "not measured"),
                pairs=int(pairs) if math.isfinite(pairs) else 0,
            )
        )
    return sorted(found, key=lambda row: (methods.get(row.method, (99,))[0], order.get(row.measure, 0)))


def by_method(found: list[Verdict], *, equal_time: bool) -> dict[str, list[Verdict]]:
    """The verdicts at equal wall-clock, or those at equal steps, method by method."""
    groups: dict[str, list[Verdict]] = {}
    for row in found:
        if row.equal_time is equal_time:
            groups.setdefault(row.method, []).append(row)
    return groups


def _hint(results: Results, measure: str) -> str:
    about = results.about(measure)
    better = {"lower": "lower is better", "higher": "higher is better"}.get(
        str(about.get("better")), "neither is better"
    )
    return ", ".join(part for part in (unit(results, measure), better) if part)


def unit(results: Results, measure: str) -> str:
    """A measure's unit, or nothing."""
    return str(results.about(measure).get("unit") or "").replace("x ", "× ", 1)


def _median(method: Method | None, *names: str) -> float:
    """Median over a method's seeds of the first of these measures that it has."""
    runs = method.runs if method else []
    values = (median(run.measures.get(name, math.nan) for run in runs) for name in names)
    return next((value for value in values if math.isfinite(value)), math.nan)


def cost_ratio(results: Results, method: Method, measure: str) -> float:
    """How many times the baseline's time or memory a method takes: the median over pairs of seeds; NaN if unknown."""
    baseline = next((each for each in results.methods if each.name == results.baseline), None)
    if baseline is None:
        return math.nan
    base = {run.seed: cost(run, measure) for run in baseline.runs}
    pairs = [(cost(run, measure), base.get(run.seed, math.nan)) for run in method.runs]
    return median(own / other for own, other in pairs if other > 0)


def cost(run: Run, measure: str) -> float:
    """Seconds per step or megabytes: as measured, else from the training record."""
    if measure in run.measures:
        return run.measures[measure]
    column = run.metrics[measure]
    column = column[np.isfinite(column)]
    if len(column) == 0:
        return math.nan
    return float(np.median(column) if measure == "step_seconds" else np.max(column))
