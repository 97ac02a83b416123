"""The report's tables other than the verdicts: overview, stability, plain medians, data, environment."""

import json
import math
from dataclasses import dataclass

from lsdr.data.problem import HARMLESS, USED
from lsdr.report.figures.stability import largest_stable
from lsdr.report.load import Method, Results, Run
from lsdr.report.numbers import THIN, count, median, number, percent, ratio, short, wilson
from lsdr.report.plain import mapping, read_object, scalar, sequence
from lsdr.report.verdicts import COSTS, Verdict, cost, cost_ratio, unit
from lsdr.report.words import example

_FAILED = ("diverged", "crashed")


@dataclass(frozen=True)
class Overview:
    """One method in the first table."""

    method: str
    baseline: bool
    value: str
    steps: Verdict | None
    time: Verdict | None
    others: str
    seconds: str
    seconds_ratio: str
    memory: str
    memory_ratio: str
    failed: str


def overview(results: Results, found: list[Verdict]) -> list[Overview]:
    """The baseline and every method: primary measure, tally of the others, cost, failures."""
    rows = []
    for method in sorted(results.methods, key=lambda method: method.name != results.baseline):
        own = [row for row in found if row.method == method.name]
        primary = {row.equal_time: row for row in own if row.primary}
        baseline = method.name == results.baseline
        seconds, memory = (median(cost(run, name) for run in method.runs) for name in COSTS)
        failed = sum(map(broke, method.runs))
        rows.append(
            Overview(
                method=method.name,
                baseline=baseline,
                value=number(median(run.measures.get(results.primary, math.nan) for run in method.runs)),
                steps=primary.get(False),
                time=primary.get(True),
                others="" if baseline else _tally([row for row in own if not row.primary and row.measure not in COSTS]),
                seconds=f"{number(seconds)}{THIN}s" if math.isfinite(seconds) else "—",
                seconds_ratio="" if baseline else ratio(cost_ratio(results, method, "step_seconds")),
                memory=f"{count(memory)}{THIN}MB" if math.isfinite(memory) else "—",
                memory_ratio="" if baseline else ratio(cost_ratio(results, method, "memory_mb")),
                failed=f"{failed} of {len(method.runs)}",
            )
        )
    return rows


def _tally(rows: list[Verdict]) -> str:
    """Other measures at equal steps, counted by verdict."""
    rows = [row for row in rows if not row.equal_time]
    better, worse = (sum(row.verdict == word for row in rows) for word in ("better", "worse"))
    parts = {"better": better, "worse": worse, "neither": len(rows) - better - worse}
    return ", ".join(f"{amount}\u00a0{word}" for word, amount in parts.items()) if rows else "—"


@dataclass(frozen=True)
class Stability:
    """How steadily one method trained."""

    method: str
    runs: str
    failed: str
    interval: str
    spikes: str
    rate: str


def stability(results: Results) -> list[Stability]:
    """Divergence with Wilson's interval, gradient spikes and the largest stable learning rate."""
    return [_stability(method) for method in results.methods]


def _stability(method: Method) -> Stability:
    ended = [run for run in method.runs if run.state in ("finished", *_FAILED)]
    failed = sum(map(broke, ended))
    low, high = wilson(failed, len(ended))
    spikes = [value for run in method.runs if math.isfinite(value := _spikes(run))]
    rates = [value for run in method.runs if math.isfinite(value := largest_stable(run))]
    spread = f" ({short(min(rates))} to {short(max(rates))})" if rates and min(rates) < max(rates) else ""
    return Stability(
        method=method.name,
        runs=f"{len(ended)} of {len(method.runs)}",
        failed=f"{failed} of {len(ended)}",
        interval=f"{percent(low).lstrip('+')} to {percent(high).lstrip('+')}" if ended else "—",
        spikes=f"{number(median(spikes))} ({count(sum(spikes))} in all)" if spikes else "—",
        rate=f"{short(median(rates))}{spread}" if rates else "—",
    )


def broke(run: Run) -> bool:
    """Whether a run diverged or crashed; a game can do so and go on to its last step."""
    return run.state in _FAILED or run.measures.get("diverged") == 1


def _spikes(run: Run) -> float:
    if "gradient_spikes" in run.measures:
        return run.measures["gradient_spikes"]
    return scalar(run.status.get("spikes"))


def medians(results: Results) -> list[tuple[str, str, list[str]]]:
    """Every measure's label, unit and median for each method: what is left to show where nothing was compared."""
    told = mapping(results.record.get("measures"))
    found = [name for run in results.runs for name in run.measures]
    if results.task == "representation":  # variants and references, by the hundred, are drawn elsewhere
        found = [name for name in found if name in told]
    names = dict.fromkeys([*told, *found])
    rows = []
    for name in names:
        values = [median(run.measures.get(name, math.nan) for run in method.runs) for method in results.methods]
        if any(math.isfinite(value) for value in values) and not name.endswith("@equal_time"):
            rows.append((results.label(name), unit(results, name), [number(value) for value in values]))
    return rows


def environment(results: Results) -> list[tuple[str, str]]:
    """What the runs ran on, entry by entry."""
    stamp = mapping(results.record.get("environment"))
    packages = mapping(stamp.pop("packages", None))
    stamp.pop("command", None)
    entries = {**stamp, **packages}
    return [(str(name), value if isinstance(value, str) else json.dumps(value)) for name, value in entries.items()]


def problems(results: Results) -> list[tuple[str, str, str, str]]:
    """What was wrong with files of the data: kind, count, what became of them, examples."""
    rows = []
    for item in sequence(mapping(results.record.get("data")).get("problems")):
        about = mapping(item)
        examples = [str(name) for name in sequence(about.get("examples"))] or [str(about.get("name") or "")]
        amount = scalar(about.get("count"))
        kind = str(about.get("kind") or "")
        done = "used all the same" if kind in USED else "no picture" if kind in HARMLESS else "left out"
        number = count(amount) if math.isfinite(amount) else "1"
        rows.append((kind.replace("_", " "), number, done, ", ".join(examples)))
    return rows


def described(results: Results, found: list[Verdict]) -> list[tuple[str, str]]:
    """How each measure that appears is measured."""
    shown = {row.measure for row in found} | {name for run in results.runs for name in run.measures}
    rows = []
    for name in mapping(results.record.get("measures")):
        text = str(results.about(name).get("description") or "")
        if name in shown and text:
            rows.append((results.label(name), text + (_yardstick(results) if name in ("fid", "kid") else "")))
    return rows


def _yardstick(results: Results) -> str:
    """How good the features are that distances between images are measured in."""
    facts = read_object(results.directory / "extractor.json", [])
    accuracy, chance = scalar(facts.get("accuracy")), scalar(facts.get("chance"))
    if not (math.isfinite(accuracy) and math.isfinite(chance)):
        return ""
    told = "quarter turns" if facts.get("task") == "rotation" else "classes"
    return (
        f" The features are those of a small network that tells {told} apart with {accuracy:.0%} accuracy on images "
        f"kept from it, where guessing gives {chance:.0%}: the closer the two, the less the distance sees."
    )


def images_in_words(results: Results) -> str:
    """How many images there are to learn from and how many are held out."""
    data = mapping(results.record.get("data"))
    total, kept, classes = (scalar(data.get(name)) for name in ("count", "heldout", "classes"))
    parts = [f"{count(total)} training {example(results)}s"] if math.isfinite(total) else []
    parts += [f"{count(kept)} held out"] if math.isfinite(kept) else []
    parts += [f"{count(classes)} classes"] if math.isfinite(classes) else []
    return ", ".join(parts)
