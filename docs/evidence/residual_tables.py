"""Judge claims 1.1 to 1.3 on classifiers by the rule of docs/evidence/residual_classifier.py, from results/ alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.experiments.bootstrap import paired_bootstrap, wilson_interval
from lsdr.runs import read_json

RESULTS = Path(__file__).parent / "results"
DEPTHS = (4, 16, 64)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
ARMS = ("none", "standardize", "spectral_normalization", "batch", "magnitude_preserving", "fixup")
SEEDS = 10


def arms(kind: str) -> list[str]:
    """The arms that a kind of network can have."""
    return [arm for arm in ARMS if kind == "residual" or arm != "fixup"]


@dataclass(frozen=True)
class Part:
    """One measure of a claim: its value for each seed of an arm (None where there is none), and how it is judged."""

    claim: str
    words: str
    kind: str
    values: Callable[[str], list[float | None]]
    more: bool
    least: float
    failing: bool = False
    """Whether there is nothing to improve where no run of either arm fails."""
    statistic: Callable[..., Any] = np.median


def parts(runs: dict[str, Any]) -> list[Part]:
    """What the claims are judged by."""
    found = []
    for kind in ("plain", "residual"):

        def tuned(name: str, depth: int, kind: str = kind) -> Callable[[str], list[float | None]]:
            return lambda arm: [each.get(name) for each in runs[f"{kind} {arm} {depth}"]]

        def deepest(arm: str, kind: str = kind) -> list[float | None]:
            trained = [[each["trains"] for each in runs[f"{kind} {arm} {depth}"]] for depth in DEPTHS]
            return [
                math.log2(max([d for d, each in zip(DEPTHS, column, strict=True) if each], default=1))
                for column in zip(*trained, strict=True)
            ]

        def failed(arm: str, kind: str = kind) -> list[float | None]:
            return [1 - sum(row) / len(row) for row in runs[f"{kind} {arm} rates"]]

        def largest(arm: str, kind: str = kind) -> list[float | None]:
            below = RATES[0] ** 2 / RATES[1]
            return [
                math.log2(max([rate for rate, trains in zip(RATES, row, strict=True) if trains], default=below))
                for row in runs[f"{kind} {arm} rates"]
            ]

        reached = [d for d in DEPTHS if sum(each["trains"] for each in runs[f"{kind} none {d}"]) >= 8]
        found += [
            Part("1.1", "deepest D that trains, log2", kind, deepest, True, 1.0, failing=True),
            Part("1.1", "rates that do not train, D = 16", kind, failed, False, 0.1, True, np.mean),
            Part("1.1", "largest rate that trains, D = 16, log2", kind, largest, True, 1.0),
        ]
        for depth in sorted({DEPTHS[0], *reached[-1:]}):
            found += [
                Part("1.2", f"held-out accuracy, D = {depth}", kind, tuned("accuracy", depth), True, 0.005),
                Part("1.2", f"gap at training loss 0.1, D = {depth}", kind, tuned("gap", depth), False, 0.02),
            ]
        found += [
            Part("1.3", f"spread of activations, D = {depth}", kind, tuned("spread", depth), False, 0.3)
            for depth in DEPTHS[1:]
        ]
    return found


def judge(part: Part, arm: str) -> tuple[str, str]:
    """The verdict on an arm, and the effect in words."""
    pairs = [(x, y) for x, y in zip(part.values(arm), part.values("none"), strict=True) if None not in (x, y)]
    if len(pairs) < 5:
        return "undecided", f"{len(pairs)} pairs"
    differences = [x - y for x, y in pairs]
    if part.failing and not any(differences) and part.values("none") == [part.values("none")[0]] * len(pairs):
        best = math.log2(DEPTHS[-1]) if part.more else 0.0
        if pairs[0][0] == best:
            return "nothing to improve", "+0"
    low, high = paired_bootstrap(differences, part.statistic)
    middle = float(part.statistic(differences))
    words = f"{middle:+.3g} [{low:+.3g}, {high:+.3g}]" + (f" of {len(pairs)}" if len(pairs) < SEEDS else "")
    sign = 1 if part.more else -1
    ends = sorted((sign * low, sign * high))
    if ends[1] < 0:
        return "worse", words
    if ends[0] > 0 and sign * middle >= part.least:
        return "supported", words
    return ("not supported" if ends[1] < part.least else "undecided"), words


_MARKS = {"supported": " **+**", "worse": " **-**", "not supported": " =", "undecided": " ?", "nothing to improve": ""}


def tables() -> str:
    """All verdicts and what they rest on, as markdown."""
    runs = read_json(RESULTS / "residual-test.json")["found"]
    all_parts = parts(runs)
    others = ARMS[1:]
    lines = [
        "| claim | measure | network | `none` | " + " | ".join(f"`{arm}`" for arm in others) + " |",
        "|" + "---|" * (4 + len(others)),
    ]
    verdicts: dict[str, list[str]] = {}
    for part in all_parts:
        own = [value for value in part.values("none") if value is not None]
        cells = [f"{part.statistic(own):.3g}" if own else ""]
        for arm in others:
            if arm not in arms(part.kind):
                cells.append("")
                continue
            judged, words = judge(part, arm)
            if arm == "standardize":
                verdicts.setdefault(part.claim, []).append(judged)
                cells.append(f"{words} **{judged}**")
            else:
                cells.append(words + _MARKS[judged])
        lines.append(f"| {part.claim} | {part.words} | {part.kind} | " + " | ".join(cells) + " |")
    lines += ["", "| claim | `standardize` in deep classifiers |", "|---|---|"]
    for claim, judged in verdicts.items():
        improvable = [each for each in judged if each != "nothing to improve"]
        if "supported" in improvable and "worse" not in improvable:
            overall = "supported"
        elif all(each in ("not supported", "worse") for each in improvable):
            overall = "not supported"
        else:
            overall = "mixed"
        counts = ", ".join(f"{judged.count(each)} {each}" for each in dict.fromkeys(judged))
        lines.append(f"| {claim} | **{overall}**: {counts} |")
    return "\n".join([*lines, "", *_trained(runs)])


def _trained(runs: dict[str, Any]) -> list[str]:
    """How many seeds train, with Wilson's interval; how many diverge; activations of the last layer."""
    lines = [
        "| network | D | arm | trains, of ten | diverges | held-out accuracy | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in ("plain", "residual"):
        for depth in DEPTHS:
            for arm in arms(kind):
                each = runs[f"{kind} {arm} {depth}"]
                trained, diverged = (sum(one[name] for one in each) for name in ("trains", "diverged"))
                low, high = wilson_interval(trained, len(each))
                accuracy = np.median([one.get("accuracy", 0.1) for one in each])
                spread_of = np.median([one["spread"] for one in each])
                lines.append(
                    f"| {kind} | {depth} | `{arm}` | {trained} [{low:.2f}, {high:.2f}] | {diverged} | {accuracy:.3f} | "
                    f"{spread_of:.2f} |"
                )
    return lines


if __name__ == "__main__":
    print(tables())
