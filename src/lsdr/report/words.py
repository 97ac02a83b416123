"""What the report says in words: what was compared, and what was found."""

import math
from dataclasses import dataclass

from lsdr.report.load import Method, Results
from lsdr.report.numbers import THIN, count, duration, number, plural
from lsdr.report.plain import mapping, scalar, vector
from lsdr.report.verdicts import COSTS, ENOUGH_SEEDS, Verdict, cost_ratio

_EXAMPLES = {"image": "image", "text": "text", "table": "row"}


@dataclass(frozen=True)
class Sentence:
    """One thing that was found; with a verdict where there is one."""

    text: str
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Finding:
    """What was found about one method."""

    method: str
    sentences: list[Sentence]


def title(results: Results) -> str:
    """What was compared on what data."""
    data = _data(results)
    on = f" on {data}" if data else ""
    if results.single:
        return f"{results.methods[0].runs[0].name}: one training run{on}"
    others = [method.name for method in results.methods if method.name != results.baseline]
    if not others:
        return f"{results.baseline} alone{on}"
    named = listed(others) if len(others) < 4 else f"{len(others)} methods"
    return f"Training with {named} compared with {results.baseline}{on}"


def _data(results: Results) -> str:
    data = mapping(results.record.get("data"))
    images, shape = scalar(data.get("count")), vector(data.get("shape"))
    size = f" of {shape[2]:.0f}{THIN}×{THIN}{shape[1]:.0f} pixels" if len(shape) == 3 else ""
    noun = example(results)
    if math.isfinite(images):
        return f"{plural(int(images), noun)}{size}"
    return f"{noun}s{size}" if len(shape) else ""


def example(results: Results) -> str:
    """What one example of the data is called.

    Example:
        >>> from pathlib import Path
        >>> example(Results(Path(), True, {"data": {"shape": [2]}}, [], "", {}))
        'point'
    """
    data = mapping(results.record.get("data"))
    if data.get("modality") in _EXAMPLES:
        return _EXAMPLES[str(data["modality"])]
    return "point" if len(vector(data.get("shape"))) == 1 else "image"


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
    """How far the verdicts carry."""
    if not found:
        return ""
    pairs = max(row.pairs for row in found) or results.seeds
    if pairs < ENOUGH_SEEDS:
        chance = f"by chance alone all would agree in one of {2 ** (pairs - 1)} comparisons"
        return (
            f"With {plural(pairs, 'seed')} nothing can be shown: {chance if pairs > 1 else 'one seed has no spread'}. "
            f"Take the numbers as a first look; verdicts need {ENOUGH_SEEDS} seeds or more."
        )
    fewer = any(row.pairs < ENOUGH_SEEDS for row in found)
    return (
        f"Each effect is the median over {plural(pairs, 'pair')} of runs that share initial weights, data order and "
        "noise. “Better” and “worse” mean that its 95 % bootstrap interval lies wholly on one side of zero; “no "
        "difference shown” does not mean that there is none."
        + (f" Where failed runs left fewer than {ENOUGH_SEEDS} pairs, nothing can be shown." if fewer else "")
    )


def comparisons_note(results: Results, found: list[Verdict]) -> str:
    """What many comparisons mean for a single one."""
    chance = scalar(results.summary.get("chance_verdicts"))
    total = plural(len(found), "comparison")
    primary = in_sentence(results.label(results.primary))
    if chance == 0:
        return f"The primary measure, named before the runs, is the {primary}. {total} are shown, none with a verdict."
    seeming = f"about {number(chance, 2)}" if math.isfinite(chance) else "one in twenty"
    return (
        f"The primary measure, named before the runs, is the {primary}. Of {total}, {seeming} would seem to show a "
        "difference by chance even if no method did anything, and the measures of one run hang together. Nothing is "
        "corrected for this: read every measure but the primary one as a hint to be tested again."
    )


def in_sentence(label: str) -> str:
    """A measure's label within a sentence: names in capitals keep them.

    Example:
        >>> in_sentence("Held-out loss"), in_sentence("FID (own features)")
        ('held-out loss', 'FID (own features)')
    """
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def findings(results: Results, found: list[Verdict]) -> list[Finding]:
    """For every method: the primary measure, the other measures, the cost, and what failed."""
    if results.single:
        return []
    methods = sorted(results.methods, key=lambda method: method.name == results.baseline)
    return [Finding(method.name, sentences) for method in methods if (sentences := _about(results, method, found))]


def _about(results: Results, method: Method, found: list[Verdict]) -> list[Sentence]:
    rows = [row for row in found if row.method == method.name]
    sentences = [_primary(row) for row in rows if row.primary]
    sentences += _others([row for row in rows if not (row.primary or row.equal_time or row.measure in COSTS)])
    if method.name != results.baseline:
        time, memory = (cost_ratio(results, method, measure) for measure in COSTS)
        parts = [f"{time:.2f} times the time"] if math.isfinite(time) else []
        parts += [f"{memory:.2f} times the memory"] if math.isfinite(memory) else []
        if parts:
            sentences.append(Sentence(f"A step takes {listed(parts)} of {results.baseline}."))
    return [*sentences, *_failures(method)]


def _primary(row: Verdict) -> Sentence:
    baseline, value = row.values
    where = " at equal wall-clock" if row.equal_time else ""
    if not math.isfinite(row.effect):
        return Sentence(f"{row.label}{where} could not be compared.")
    change = f"{row.change} (95 % interval {row.change_interval})" if row.pairs > 1 else row.change
    return Sentence(f"{row.label}{where}: {value} against {baseline}, {change}.", row)


def _others(rows: list[Verdict]) -> list[Sentence]:
    if not rows:
        return []
    better, worse = (sum(row.verdict == word for row in rows) for word in ("better", "worse"))
    shown = [row for row in rows if row.shown]
    if not shown:
        return [Sentence(f"None of the {plural(len(rows), 'other measure')} showed a difference.")]
    moved = len(shown) - better - worse
    tally = f"{better} came out better, {worse} worse"
    tally += f", {moved} changed in a way that is neither" if moved else ""
    largest = sorted(shown, key=_size, reverse=True)[:3]
    words = "; ".join(f"{row.label} {row.change} ({row.change_interval}), {row.verdict}" for row in largest)
    return [Sentence(f"Of {plural(len(rows), 'other measure')}, {tally}. Largest: {words}.")]


def _size(row: Verdict) -> float:
    size = abs(row.effect / row.scale) if math.isfinite(row.scale) else 0.0
    return size if math.isfinite(size) else 0.0


def _failures(method: Method) -> list[Sentence]:
    tally: dict[str, int] = {}
    for run in method.runs:
        if run.state != "finished":
            tally[run.state] = tally.get(run.state, 0) + 1
    words = {"running": "not finished when this was written"}
    parts = [f"{count(amount)} {words.get(state, state)}" for state, amount in tally.items()]
    return [Sentence(f"Of {plural(len(method.runs), 'run')}, {listed(parts)}.")] if parts else []


def listed(parts: list[str]) -> str:
    """A list as a person says it.

    Example:
        >>> listed(["clip", "decorrelation", "lambda_zero"])
        'clip, decorrelation and lambda_zero'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
