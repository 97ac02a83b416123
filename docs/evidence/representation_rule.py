"""The rule of docs/evidence/representation.md: one measure of one arm against another's, and several together."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np

from lsdr.experiments.bootstrap import paired_bootstrap, seeds_needed
from lsdr.experiments.summary import PAIRS_NEEDED

LEAST = 0.02
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_ROOM = "supported", "not supported", "undecided", "nothing to improve"
NOT_TESTED = "not tested"
Seeds = dict[int, float]
"""A measure by seed; nan where a run has none."""


@dataclass(frozen=True)
class Question:
    """One measure of one arm against another's."""

    name: str
    arm: Seeds
    against: Seeds
    better: int = 1
    """1 where more is what is claimed, -1 where less."""
    not_worse: bool = False
    bounded: bool = True
    """Whether the measure lies between 0 and 1, so that there may be nothing left to improve."""


def judge(asked: Question) -> tuple[str, str]:
    """The verdict, and the effect in words."""
    arm, base = asked.arm, asked.against
    both = arm.keys() & base.keys()
    pairs = sorted(seed for seed in both if isfinite(arm[seed]) and isfinite(base[seed]))
    lost = sum(not isfinite(arm[seed]) and isfinite(base[seed]) for seed in both)
    if not pairs:
        return UNDECIDED, f"{asked.name}: no value"
    differences = [asked.better * (arm[seed] - base[seed]) for seed in pairs]
    effect, (low, high) = float(np.median(differences)), paired_bootstrap(differences)
    middle = float(np.median([base[seed] for seed in pairs]))
    ends = sorted((asked.better * low, asked.better * high))
    shown = [asked.better * effect + 0.0, ends[0] + 0.0, ends[1] + 0.0]  # no -0
    words = "{} {:+.3f} [{:+.3f}, {:+.3f}] of {:.3f}".format(asked.name, *shown, middle)
    words += f", {lost} seeds without a value" if lost else ""
    room = [1 - base[seed] if asked.better > 0 else base[seed] for seed in pairs]
    if asked.not_worse:
        verdict = SUPPORTED if low > -LEAST and not lost else NOT_SUPPORTED if high < -LEAST else UNDECIDED
    elif asked.bounded and max(room) < LEAST and high > -LEAST:
        verdict = NO_ROOM
    elif low > 0 and effect >= LEAST:
        verdict = UNDECIDED if lost else SUPPORTED
    else:
        verdict = NOT_SUPPORTED if high < LEAST or high <= 0 else UNDECIDED
    if len(pairs) < PAIRS_NEEDED and verdict in (SUPPORTED, NOT_SUPPORTED):
        return UNDECIDED, f"{words} ({len(pairs)} pairs: fewer than {PAIRS_NEEDED} decide nothing)"
    if verdict == UNDECIDED and not lost:
        needed = seeds_needed(differences) or ceil(len(pairs) * ((high - low) / 2 / LEAST) ** 2)
        words += f" ({needed} seeds would tell)" if 0 < needed < 10_000 else ""
    return verdict, words


def together(verdicts: Iterable[str]) -> str:
    """Supported if all are, not supported if one is not; what has nothing to improve does not vote."""
    found = list(verdicts)
    voting = [each for each in found if each != NO_ROOM]
    if not found:
        return NOT_TESTED
    if not voting:
        return NO_ROOM
    if NOT_SUPPORTED in voting:
        return NOT_SUPPORTED
    return UNDECIDED if UNDECIDED in voting else SUPPORTED
