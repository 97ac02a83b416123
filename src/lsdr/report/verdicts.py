"""The verdict tables: every comparison of a method with the baseline, and what the method costs."""

import math
from dataclasses import dataclass

import numpy as np

from lsdr.report.load import Method, Results, Run, plain_name
from lsdr.report.numbers import median, number, percent, plural, signed
from lsdr.report.plain import mapping, mappings, scalar

ENOUGH_SEEDS = 5
"""With n pairs of seeds even n effects of one sign happen by chance in 2 of 2**n cases: 6 % at five."""
COSTS = ("step_seconds", "memory_mb")
_NOTHING = ("no difference shown", "not measured")
_SYMBOLS = {"better": "✓", "worse": "✗", "higher": "↑", "lower": "↓"}
_RATES = ("diverged",)  # 0 or 1 a run: their mean is a rate, their median nothing


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
    verdict: str
    pairs: int
    reason: str
    seeds_needed: float
    primary: bool
    """Whether this is the measure named before the runs as the one that decides."""

    @property
    def shown(self) -> bool:
        """Whether a difference was shown."""
        return self.verdict not in _NOTHING

    @property
    def symbol(self) -> str:
        """A sign for the verdict, for those who do not see its colour."""
        return _SYMBOLS.get(self.verdict.split(",")[0], "–")

    @property
    def tone(self) -> str:
        """The verdict's style class."""
        return self.verdict if self.verdict in ("better", "worse") else "neutral" if self.shown else "none"

    @property
    def scale(self) -> float:
        """The baseline, to which effects are relative; NaN where values below zero make per cent meaningless."""
        return self.baseline if self.baseline > 0 and not self.value < 0 else math.nan

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
            return f"{percent(self.low / self.scale)} to {percent(self.high / self.scale)}"
        return f"{signed(self.low)} to {signed(self.high)}"

    @property
    def absolute(self) -> str:
        """The effect and its interval in the measure's unit."""
        if not math.isfinite(self.scale):
            return ""  # then it is what `change` says
        return f"{signed(self.effect)} ({signed(self.low)} to {signed(self.high)})"

    @property
    def footnote(self) -> str:
        """What there is to say about the verdict: why it is withheld or hedged, or how many seeds it would take."""
        decided = self.pairs >= ENOUGH_SEEDS and self.low * self.high > 0
        if decided:
            return self.reason if not self.shown or ";" in self.reason else ""
        if math.isfinite(self.seeds_needed) and self.seeds_needed > self.pairs:
            return f"it would take about {plural(int(self.seeds_needed), 'seed')} to show this effect"
        return ""

    @property
    def values(self) -> tuple[str, str]:
        """Baseline and method as text."""
        return number(self.baseline), number(self.value)


def verdicts(results: Results) -> list[Verdict]:
    """Every comparison of summary.json: by method, the primary measure first, the rest in the measures' own order."""
    primary = results.primary
    order = {
        name: place for place, name in enumerate(dict.fromkeys([primary, *mapping(results.record.get("measures"))]))
    }
    methods = {method.name: (place, method) for place, method in enumerate(results.methods)}
    found = []
    for item in mappings(results.summary.get("comparisons")):
        name, measure = str(item.get("measure")), plain_name(str(item.get("measure")))
        if measure in ("step_seconds_ratio", "memory_ratio"):
            continue  # the same effect as the plain measure's in per cent
        _, method = methods.get(str(item.get("method")), (0, None))
        against = methods.get(str(item.get("against")), (0, None))[1]
        pairs = scalar(item.get("pairs"))
        baseline = math.nan if measure in _RATES else scalar(item.get("baseline"))
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
                verdict=str(item.get("verdict") or "not measured"),
                pairs=int(pairs) if math.isfinite(pairs) else 0,
                reason=str(item.get("reason") or ""),
                seeds_needed=scalar(item.get("seeds_needed")),
                primary=measure == primary,
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
        str(about.get("better")), "neither way is better"
    )
    return ", ".join(part for part in (unit(results, measure), better) if part)


def unit(results: Results, measure: str) -> str:
    """A measure's unit, or nothing."""
    return str(results.about(measure).get("unit") or "").replace("x ", "× ", 1)


def _median(method: Method | None, *names: str) -> float:
    """Median over a method's seeds (of a rate, the mean) of the first of these measures that it has."""
    for name in names:
        values = [run.measures[name] for run in (method.runs if method else []) if name in run.measures]
        if values:
            return sum(values) / len(values) if name in _RATES else median(values)
    return math.nan


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
