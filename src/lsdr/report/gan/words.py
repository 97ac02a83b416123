"""Whether runs collapsed, in words, and what was noticed while they trained."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lsdr.gan.judge import judge
from lsdr.report.gan.coverage import modes_of_run, worst_run
from lsdr.report.load import Method, Results, Run
from lsdr.report.numbers import count, plural
from lsdr.report.plain import mapping, scalar

EVENTS = ("realism", "mode_loss")
"""Kinds of events that tell of the samples, not of failures."""
_WORDS = {"realism": "less realistic", "mode_loss": "modes lost"}
_MOST = 8
_KINDS = {
    "not_measured": "no samples",
    "not_finite": "values that are not finite",
    "one_image": "collapse to one sample",
    "mode_collapse": "mode collapse",
    "memorises": "memorised examples",
    "missing_modes": "missing modes",
    "uneven_modes": "uneven modes",
    "off_modes": "samples off the modes",
    "low_coverage": "low coverage",
    "unrealistic": "unrealistic samples",
    "discriminator_overfits": "an overfitting discriminator",
}


@dataclass(frozen=True)
class Noticed:
    """What a run's samples did on the way."""

    kind: str
    text: str


def judged(run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """Findings and answer of one measured run; empty where it was not measured."""
    if not run.measures:
        return {}
    curves = {**run.curves, "perfect": _whole(mapping(run.curves.get("perfect")))}
    curves["modes"] = modes_of_run(run)
    return judge(run.measures, curves, data)


def _whole(perfect: dict[str, Any]) -> dict[str, Any]:
    """The entries that hold a number; of a single draw there is no standard deviation."""
    read = {
        name: (scalar(mapping(value).get("mean")), scalar(mapping(value).get("sd"))) for name, value in perfect.items()
    }
    return {
        name: {"mean": mean, "sd": deviation if deviation >= 0 else 0.0}
        for name, (mean, deviation) in read.items()
        if math.isfinite(mean)
    }


def answers(results: Results) -> list[tuple[str, list[str]]]:
    """For each method what its samples say about mode collapse: of a lone run, or run by run in sum."""
    data = mapping(results.record.get("data"))
    return [(method.name, told) for method in results.methods if (told := _about(method, data))]


def _about(method: Method, data: dict[str, Any]) -> list[str]:
    found = [(run, told) for run in method.runs if (told := judged(run, data))]
    if len(found) == 1:
        told = found[0][1]
        others = [each["message"] for each in told["findings"] if each["message"].rstrip(".") not in told["answer"]]
        return [told["answer"], *(f"{text[:1].upper()}{text[1:]}." for text in others)]
    if not found:
        return []
    runs = len(found)
    tally = Counter(kind for _, told in found for kind in {str(each["kind"]) for each in told["findings"]})
    parts = [f"{words} in {count(tally[kind])}" for kind, words in _KINDS.items() if tally[kind]]
    if not parts:
        return [f"No sign of mode collapse in any of {plural(runs, 'run')}."]
    worst = worst_run(method) or found[0][0]
    answer = next(str(told["answer"]) for run, told in found if run is worst)
    return [f"Of {plural(runs, 'run')}: {', '.join(parts)}.", f"The worst, seed {worst.seed}: {answer}"]


def noticed(results: Results) -> tuple[list[Noticed], int]:
    """Falls of realism and of modes that runs recorded, and how many more there are."""
    found = [
        Noticed(_WORDS[str(event["kind"])], f"{run.name}, step {count(scalar(event.get('step')))}: "
                f"{event.get('message') or ''}".rstrip(": "))
        for run in results.runs
        for event in run.events
        if event.get("kind") in EVENTS
    ]  # fmt: skip
    return found[:_MOST], max(len(found) - _MOST, 0)
