"""What the report says in words: what was compared, and what was found."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.report.load import Method, Results
from lsdr.report.numbers import THIN, count, duration, plural, ratio
from lsdr.report.plain import mapping, scalar, vector
from lsdr.report.verdicts import COSTS, ENOUGH_SEEDS, Verdict, cost_ratio


@dataclass(frozen=True)
class Finding:
    """What was found about one method."""

    method: str
    sentences: list[str]


def title(results: Results) -> str:
    """What was compared on what data."""
    data = _data(results)
    on = f" on {data}" if data else ""
    if results.single:
        return f"{results.methods[0].runs[0].name}: one training run{on}"
    others = [method.name for method in results.methods if method.name != results.baseline]
    if not others:
        return f"{results.baseline} alone{on}"
    return f"{listed(others)} compared with {results.baseline}{on}"


def _data(results: Results) -> str:
    data = mapping(results.record.get("data"))
    images, shape = scalar(data.get("count")), vector(data.get("shape"))
    size = f" of {shape[2]:.0f}{THIN}×{THIN}{shape[1]:.0f} pixels" if len(shape) == 3 else ""
    if math.isfinite(images):
        return f"{plural(int(images), 'image')}{size}"
    return f"images{size}" if size else ""


def facts(results: Results) -> list[str]:
    """Steps, seeds, machine and date: one short phrase each."""
    runs = results.runs
    steps = max((scalar(run.status.get("steps")) for run in runs if "steps" in run.status), default=math.nan)
    environment = mapping(results.record.get("environment"))
    packages = mapping(environment.get("packages"))
    processors = scalar(environment.get("processors"))
    seconds = sum(value for run in runs if math.isfinite(value := scalar(run.status.get("seconds"))))
    finished = sum(run.state == "finished" for run in runs)
    source = mapping(results.record.get("data")).get("source")
    found = [
        f"data: {source}" if source else "",
        f"{plural(int(steps), 'training step')} a run" if math.isfinite(steps) else "",
        "" if results.single else f"{plural(results.seeds, 'seed')} a method",
        f"status: {runs[0].state}" if results.single else f"{finished} of {plural(len(runs), 'run')} finished",
        f"{duration(seconds)} of training" if seconds else "",
        str(environment.get("device") or ""),
        str(environment.get("platform") or ""),
        plural(int(processors), "processor") if math.isfinite(processors) else "",
        f"torch {packages['torch']}" if "torch" in packages else "",
        str(results.record.get("finished") or results.record.get("created") or "")[:16].replace("T", " "),
    ]
    return [fact for fact in found if fact]


def caution(results: Results, found: list[Verdict]) -> str:
    """How far the verdicts carry: seeds, and how many comparisons were made."""
    if not found:
        return ""
    pairs = max(row.pairs for row in found) or results.seeds
    if pairs < ENOUGH_SEEDS:
        chance = {1: "always", 2: "in one of two comparisons"}.get(pairs, f"in one of {2 ** (pairs - 1)} comparisons")
        return (
            f"With {plural(pairs, 'seed')} nothing can be shown: by chance alone, all seeds would agree {chance}. "
            f"Take the numbers as a first look; this report draws no conclusion from fewer than {ENOUGH_SEEDS} seeds."
        )
    return (
        f"Each effect is the median over {plural(pairs, 'pair')} of runs that share initial weights, data order and "
        "noise; “better” and “worse” mean that its 95 % bootstrap interval lies wholly on one side of zero."
    )


def comparisons_note(found: list[Verdict]) -> str:
    """What many comparisons mean for a single one."""
    return (
        "The primary measure, named before the runs, is the held-out loss. The tables hold "
        f"{plural(len(found), 'comparison')}; at 95 %, about {max(1, round(len(found) / 20))} would seem to show a "
        "difference by chance even if no method did anything, and the measures of one run hang together. Nothing is "
        "corrected for this: read every measure but the primary one as a hint to be tested again."
    )


def findings(results: Results, found: list[Verdict]) -> list[Finding]:
    """For every method: the primary measure, the other measures, the cost, and what failed."""
    methods = sorted(results.methods, key=lambda method: method.name == results.baseline)
    return [Finding(method.name, sentences) for method in methods if (sentences := _about(results, method, found))]


def _about(results: Results, method: Method, found: list[Verdict]) -> list[str]:
    rows = [row for row in found if row.method == method.name]
    sentences = [_primary(row) for row in rows if row.primary]
    others = [row for row in rows if not row.primary and not row.equal_time and row.measure not in COSTS]
    if others:
        sentences.append(_others(others))
    if method.name != results.baseline:
        time, memory = (cost_ratio(results, method, measure) for measure in COSTS)
        parts = [f"{ratio(time)} the time"] * math.isfinite(time) + [f"{ratio(memory)} the memory"] * math.isfinite(
            memory
        )
        if parts:
            sentences.append(f"A step takes {listed(parts)} of {results.baseline}.")
    sentences += _failures(method)
    return sentences


def _primary(row: Verdict) -> str:
    baseline, value = row.values
    where = "At equal wall-clock: " if row.equal_time else ""
    if not math.isfinite(row.effect):
        return f"{where}{row.label} could not be compared."
    verdict = row.verdict if row.shown else "no difference shown"
    return (
        f"{where}{row.label} {value} against {baseline}: {row.change} (95 % interval {row.change_interval}), {verdict}."
    )


def _others(rows: list[Verdict]) -> str:
    tally = [f"{number} {word}" for word in ("better", "worse") if (number := sum(row.verdict == word for row in rows))]
    moved = sum(row.verdict in ("higher", "lower") for row in rows)
    tally += [f"{moved} moved, neither for better nor worse"] if moved else []
    if not tally:
        return f"None of the {plural(len(rows), 'other measure')} showed a difference."
    shown = sorted((row for row in rows if row.shown), key=_size, reverse=True)[:3]
    largest = "; ".join(
        f"{_lower_first(row.label)} {row.change} ({row.change_interval}), {row.verdict}" for row in shown
    )
    return f"Of {plural(len(rows), 'other measure')}: {', '.join(tally)}. Largest: {largest}."


def _size(row: Verdict) -> float:
    size = abs(row.effect / row.scale) if math.isfinite(row.scale) else 0.0
    return size if math.isfinite(size) else 0.0


def _failures(method: Method) -> list[str]:
    total = len(method.runs)
    tally: dict[str, int] = {}
    for run in method.runs:
        if run.state != "finished":
            tally[run.state] = tally.get(run.state, 0) + 1
    words: dict[str, Any] = {"running": "not finished when this was written", "interrupted": "interrupted"}
    parts = [f"{count(number)} {words.get(state, state)}" for state, number in tally.items()]
    return (
        [f"Of {plural(total, 'run')}, {listed(parts)}."] if parts and not (total == 1 and "finished" in tally) else []
    )


def listed(parts: list[str]) -> str:
    """A list as a person says it.

    Example:
        >>> listed(["clip", "decorrelation", "lambda_zero"])
        'clip, decorrelation and lambda_zero'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lower_first(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
