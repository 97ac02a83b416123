"""From the files of a comparison to its verdicts; needs no torch, and nothing but the run directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.experiments.bootstrap import paired_bootstrap, seeds_needed, wilson_interval
from lsdr.experiments.states import OVER, Run, read_status, step_seconds
from lsdr.runs import read_json, write_json

PAIRS_NEEDED = 5
"""Below five pairs, differences of one sign come about by chance in more than one of ten comparisons."""
NO_DIFFERENCE = "no difference shown"
LESS_DIVERSITY = "lower, with less diversity"

_LEVEL = 0.95
_EQUAL_TIME = "@equal_time"
_DIVERSITY = "diversity_variance"
_NEEDS_DIVERSITY = ("sensitivity", "lyapunov")  # a sampler that ignores its noise scores zero on these
_DIVERSITY_MARGIN = 0.05
_RATES = ("diverged",)  # 0 or 1 a seed: their median says nothing, their mean is a rate


@dataclass(frozen=True)
class _Result:
    """What one run left behind."""

    status: str
    measures: Mapping[str, float | None]

    @property
    def failed(self) -> bool:
        return self.status in ("diverged", "crashed")


def summarize(directory: Path) -> dict[str, Any]:
    r"""Write summary.json from the files of an experiment directory, and return it.

    Every method is compared with `baseline` (or the first method) on every measure: the effect is the median over
    seeds of the paired difference, method minus baseline, with its 95% percentile bootstrap interval over pairs. A
    verdict other than "no difference shown" needs five pairs and an interval without zero. It is not given in favour
    of a method whose runs failed where the other's did not: the seeds that are left would be the lucky ones. A better
    output sensitivity or Lyapunov exponent is only "lower, with less diversity" where the samples' variance may have
    fallen by more than 5%. "<measure>@equal_time" compares the method, stopped at the baseline's wall-clock, with
    the baseline at its end.

    Args:
        directory: An experiment directory, with experiment.json.

    Returns:
        What summary.json holds: "methods" (every run's status and measures), "comparisons", "divergence" (how many
        runs failed, with Wilson's interval) and "chance_verdicts", the number of differences that comparisons of
        equal methods would show on average.

    Raises:
        ValueError: If there is no experiment.json.
    """
    path = directory / "experiment.json"
    if not path.exists():
        raise ValueError(f"{directory} holds no experiment.json; give the --out folder of a comparison")
    experiment = read_json(path)
    names = [method["name"] for method in experiment["methods"]]
    against = "baseline" if "baseline" in names else names[0]
    results = {
        name: {seed: _read(Run.of(directory, name, seed).directory) for seed in experiment["seeds"]} for name in names
    }
    for name in names:
        results[name] = {seed: _with_ratios(run, results[against][seed]) for seed, run in results[name].items()}
    comparisons = [
        comparison
        for name in names
        if name != against
        for comparison in _compare(name, results[name], against, results[against], experiment["measures"])
    ]
    summary = {
        "methods": [
            {
                "name": name,
                "seeds": [
                    {"seed": seed, "status": run.status, "measures": dict(run.measures)} for seed, run in runs.items()
                ],
            }
            for name, runs in results.items()
        ],
        "comparisons": comparisons,
        "divergence": [_divergence(name, runs) for name, runs in results.items()],
        "chance_verdicts": round(sum(_chance(comparison) for comparison in comparisons), 2),
    }
    write_json(directory / "summary.json", summary)
    return summary


def _read(directory: Path) -> _Result:
    status = read_status(directory)["status"]
    if status not in OVER:
        return _Result(status, {})
    path = directory / "measures.json"
    found = read_json(path) if path.exists() else {}
    measures = {name: None if value is None else float(value) for name, value in found.items()}
    if measures.get("step_seconds") is None:
        measures["step_seconds"] = step_seconds(directory)
    measures["diverged"] = float(status != "finished")
    return _Result(status, measures)


def _with_ratios(run: _Result, baseline: _Result) -> _Result:
    """Add cost relative to the baseline's run of the same seed."""
    measures = dict(run.measures)
    for ratio, cost in (("step_seconds_ratio", "step_seconds"), ("memory_ratio", "memory_mb")):
        own, other = measures.get(cost), baseline.measures.get(cost)
        if own is not None and other:
            measures[ratio] = own / other
    return _Result(run.status, measures)


def _compare(
    method: str,
    runs: Mapping[int, _Result],
    against: str,
    baselines: Mapping[int, _Result],
    measures: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Compare one method with the baseline on every measure that either has."""
    found = {}
    for measure in [*measures, *(name + _EQUAL_TIME for name in measures)]:
        own = {seed: run.measures.get(measure) for seed, run in runs.items()}
        # The baseline at its own wall-clock is the baseline at its end.
        plain = measure.removesuffix(_EQUAL_TIME)
        other = {seed: run.measures.get(measure, run.measures.get(plain)) for seed, run in baselines.items()}
        if all(value is None for value in own.values()) and (
            measure != plain or all(value is None for value in other.values())
        ):
            continue
        better = measures[plain]["better"]
        comparison = {"method": method, "against": against, "measure": measure, **_effect(own, other, better, plain)}
        _withhold(comparison, better, runs, baselines, own, other)
        found[measure] = comparison
    for measure, comparison in found.items():
        if measure.removesuffix(_EQUAL_TIME) in _NEEDS_DIVERSITY and comparison["verdict"] == "better":
            suffix = _EQUAL_TIME if measure.endswith(_EQUAL_TIME) else ""
            _ask_for_diversity(comparison, found.get(_DIVERSITY + suffix))
    return list(found.values())


def _effect(
    own: Mapping[int, float | None], other: Mapping[int, float | None], better: str | None, measure: str
) -> dict[str, Any]:
    """Effect, interval and verdict of one measure from values by seed."""
    pairs = [(a, b) for seed, a in own.items() if a is not None and (b := other.get(seed)) is not None]
    if not pairs:
        nothing = dict.fromkeys(("effect", "low", "high", "relative", "baseline", "seeds_needed"))
        reason = "no seed has a value in both methods"
        return {**nothing, "verdict": NO_DIFFERENCE, "pairs": 0, "reason": reason}
    differences = np.array([a - b for a, b in pairs])
    statistic: Any = np.mean if measure in _RATES else np.median
    effect = float(statistic(differences))
    low, high = paired_bootstrap(differences, statistic, _LEVEL)
    baseline = float(median(b for _, b in pairs))
    shown = len(pairs) >= PAIRS_NEEDED and (low > 0 or high < 0)
    needed = None if shown else seeds_needed(differences, _LEVEL)
    return {
        "effect": effect,
        "low": low,
        "high": high,
        "verdict": _direction(low > 0, better) if shown else NO_DIFFERENCE,
        "pairs": len(pairs),
        "baseline": baseline,
        "relative": effect / abs(baseline) if baseline else None,
        "seeds_needed": needed,
        "reason": _reason(differences, shown, needed),
    }


def _direction(higher: bool, better: str | None) -> str:
    if better is None:
        return "higher" if higher else "lower"
    return "better" if higher == (better == "higher") else "worse"


def _reason(differences: NDArray[np.float64], shown: bool, needed: int | None) -> str:
    count = len(differences)
    seeds = f"{count} paired seed{'s' if count > 1 else ''}"
    if shown:
        return f"the interval over {seeds} excludes zero"
    if not differences.any():
        return f"the same value in both methods on all of {seeds}" if count > 1 else "the same value on the one seed"
    plan = f"; about {needed} would show the observed effect" if needed is not None and needed > count else ""
    if count < PAIRS_NEEDED:
        return f"{seeds}; {PAIRS_NEEDED} are needed before an interval can exclude chance{plan}"
    return f"the interval over {seeds} includes zero{plan}"


def _withhold(
    comparison: dict[str, Any],
    better: str | None,
    runs: Mapping[int, _Result],
    baselines: Mapping[int, _Result],
    own: Mapping[int, float | None],
    other: Mapping[int, float | None],
) -> None:
    """Take back a verdict in favour of the side whose failed runs are missing from the pairs."""
    if comparison["verdict"] == NO_DIFFERENCE:
        return
    lost = sum(run.failed and own[seed] is None for seed, run in runs.items())
    lost_there = sum(run.failed and other[seed] is None for seed, run in baselines.items())
    for name, count, favoured in (
        (comparison["method"], lost, "better"),
        (comparison["against"], lost_there, "worse"),
    ):
        if count and (comparison["verdict"] == favoured or better is None):
            comparison["verdict"] = NO_DIFFERENCE
            comparison["reason"] = (
                f"{count} run{'s' if count > 1 else ''} of {name} diverged or crashed and left no value; "
                "the seeds that are left do not speak for the method"
            )
            return


def _ask_for_diversity(comparison: dict[str, Any], diversity: Mapping[str, Any] | None) -> None:
    """Turn "better" into "lower" unless diversity was measured and has not fallen."""
    if diversity is None or diversity["low"] is None or not diversity["baseline"]:
        comparison["verdict"] = "lower"
        comparison["reason"] += "; lower counts as better only beside diversity, which was not measured"
    elif diversity["verdict"] == "lower" or diversity["low"] / abs(diversity["baseline"]) < -_DIVERSITY_MARGIN:
        comparison["verdict"] = LESS_DIVERSITY
        comparison["reason"] += (
            f"; the samples' variance changed by {_percent(diversity, 'low')} to {_percent(diversity, 'high')}"
        )


def _percent(comparison: Mapping[str, Any], end: str) -> str:
    return f"{100 * comparison[end] / abs(comparison['baseline']):+.1f}%"


def _divergence(method: str, runs: Mapping[int, _Result]) -> dict[str, Any]:
    """How many of a method's runs failed, with Wilson's interval of the rate."""
    ended = [run.status for run in runs.values() if run.status in OVER]
    failed = sum(status != "finished" for status in ended)
    low, high = wilson_interval(failed, len(ended), _LEVEL) if ended else (None, None)
    return {
        "method": method,
        "runs": len(ended),
        "diverged": ended.count("diverged"),
        "crashed": ended.count("crashed"),
        "rate": failed / len(ended) if ended else None,
        "low": low,
        "high": high,
    }


def _chance(comparison: Mapping[str, Any]) -> float:
    """Chance that a comparison of equal methods shows a difference."""
    if comparison["pairs"] < PAIRS_NEEDED or comparison["low"] == comparison["high"] == 0:
        return 0.0
    return max(1 - _LEVEL, float(2.0 ** (1 - comparison["pairs"])))
