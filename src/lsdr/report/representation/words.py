"""How good, how invariant, how robust and how compact a run's codes are, in words."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lsdr.report.numbers import THIN, count, number, short
from lsdr.report.plain import mapping, scalar
from lsdr.report.representation.files import CODES, REFERENCES, Facts, curve
from lsdr.report.thin import Array
from lsdr.report.words import listed

_KEPT, _PARTLY = 0.9, 0.6
"""Shares of the codes' variance that a transformation leaves: what counts as invariant, and as partly so."""
EVENTS = ("collapse", "overfitting")
"""Kinds of events that tell of the codes, not of failures."""
_GRAVE = ("not_finite", "collapsed", "dimensional_collapse", "shortcut", "not_measured")
"""Kinds of findings without which nothing else counts."""
_SAID = ("no_gain",)  # the answers say so themselves
_NEAR = 0.01
"""Accuracy that a shorter code may lose and still count as good as the whole."""
_ERRORS = 2.0
_WORDS = {"marginal": "redrawn cells", "missing": "missing cells", "grey": "loss of colour", "flip": "mirroring"}


@dataclass(frozen=True)
class Answer:
    """One question about the codes, answered."""

    question: str
    text: str
    more: list[str] = field(default_factory=list)


def answers(facts: Facts, heldout: float = math.nan) -> list[Answer]:
    """Every question that a run's files can answer, the most important first.

    Args:
        facts: The run's files.
        heldout: How many held-out examples there are, for how far accuracies vary by chance; unknown without.
    """
    health = collapse(facts)
    asked = [good(facts, heldout), invariant(facts), robust(facts), compact(facts), overfits(facts)]
    return [answer for answer in ([health, *asked] if wrong(facts) else [*asked, health]) if answer]


def wrong(facts: Facts) -> list[dict[str, Any]]:
    """The findings that put everything else in doubt."""
    return [each for each in facts.findings() if each.get("kind") in _GRAVE]


def collapse(facts: Facts) -> Answer | None:
    """Whether the codes have collapsed, and what else looks wrong; nothing where nothing was looked for."""
    text = str(facts.judged.get("answer") or "")
    messages = [str(each.get("message") or "") for each in facts.findings() if each.get("kind") not in _SAID]
    others = [_sentence(message) for message in messages if (message.partition(": ")[2] or message) not in text]
    return Answer("Have they collapsed?", text, others) if text else None


def good(facts: Facts, heldout: float = math.nan) -> Answer | None:
    """What a linear probe makes of the codes with the fewest and with all labels, beside the references."""
    shares = [share for share in facts.shares("linear") if len(facts.draws("linear", share, CODES))]
    if not shares:
        return None
    told = [_probed(facts, share, heldout) for share in dict.fromkeys((min(shares), max(shares)))]
    chance = scalar(facts.probes.get("chance"))
    more = [f"Always naming the most common class is right for {percentage(chance)}."] if chance > 0 else []
    return Answer("How good are the codes?", told[0], [*told[1:], *more])


def _probed(facts: Facts, share: float, heldout: float) -> str:
    accuracy = facts.accuracy("linear", share, CODES)
    labels, draws = facts.accuracies("linear", CODES)
    shares = facts.shares("linear")
    amount = next((float(labels[k]) for k in range(len(draws)) if math.isclose(shares[k], share)), math.nan)
    number_of = f"{count(amount)} labels" if math.isfinite(amount) else "labels"
    which = f"all {number_of}" if share >= 1 else f"{number_of} ({percentage(share)} of them)"
    text = f"With {which} a linear probe on the codes is right for {percentage(accuracy)} of held-out examples"
    beside: dict[str, list[str]] = {}
    for kind, name in REFERENCES.items():
        words = f"the {name}" if kind == "random" else name
        found = facts.draws("linear", share, kind)
        if len(found):
            value = facts.accuracy("linear", share, kind)
            verdict = _verdict(facts.draws("linear", share, CODES), found, heldout)
            beside.setdefault(verdict, []).append(f"{words} ({percentage(value)})")
    parts = [f"{verdict} {listed(beside[verdict])}" for verdict in _VERDICTS if verdict in beside]
    return text + (f": {'; '.join(parts)}." if parts else ".")


_VERDICTS = ("more than with", "no clear difference from", "less than with")


def _verdict(own: Any, other: Any, heldout: float) -> str:
    """Whether codes and a reference differ: in every draw alike, and by more than so many examples do by chance."""
    size = min(len(own), len(other))
    differences = own[:size] - other[:size]
    middle = float(np.median(differences))
    shares = float(np.median(own)), float(np.median(other))
    spread = sum(share * (1 - share) for share in shares)
    error = math.sqrt(spread / heldout) if heldout > 0 else 0.0
    agree = bool((differences > 0).all() or (differences < 0).all())
    if not agree or abs(middle) <= _ERRORS * error:
        return _VERDICTS[1]
    return _VERDICTS[0] if middle > 0 else _VERDICTS[2]


def invariant(facts: Facts) -> Answer | None:
    """What share of the codes' variance stays under each transformation, at the strength trained with."""
    kept = {name: at_strength(about) for name, about in facts.transformations().items()}
    kept = {name: found for name, found in kept.items() if math.isfinite(found[2])}
    if not kept:
        return None
    trained = [name for name in kept if facts.transformations()[name].get("trained")]
    told = [_kept(kept, trained or list(kept))]
    if trained:
        details = []
        for name in trained:
            strength, unit, share = kept[name]
            raw = at_strength(facts.transformations()[name], "raw")[2]
            beside = f" (raw inputs {percentage(raw)})" if math.isfinite(raw) else ""
            details.append(f"{_plain(name)} {short(strength)}{unit}: {percentage(share)}{beside}")
        told.append(f"Share of the variance between examples that each leaves as it is: {'; '.join(details)}.")
        others = [name for name in kept if name not in trained]
        told += [f"Not trained with, and measured all the same: {_kept(kept, others)}"] if others else []
    return Answer("How invariant are they?", f"The codes are {told[0]}", told[1:])


def _kept(kept: dict[str, tuple[float, str, float]], names: list[str]) -> str:
    """Transformations in groups by how much of the variance they leave."""
    groups: dict[str, list[str]] = {}
    for name in names:
        share = kept[name][2]
        verdict = (
            "invariant to" if share >= _KEPT else "partly invariant to" if share >= _PARTLY else "not invariant to"
        )
        groups.setdefault(verdict, []).append(_plain(name))
    order = ("invariant to", "partly invariant to", "not invariant to")
    return "; ".join(f"{verdict} {listed(groups[verdict])}" for verdict in order if verdict in groups) + "."


def at_strength(about: dict[str, Any], kind: str = CODES) -> tuple[float, str, float]:
    """A transformation at the strength trained with, or else the middle one: strength, its unit, variance kept."""
    strengths, shares = curve(about, "strengths", "icc", kind)
    if not np.isfinite(shares).any():
        return math.nan, "", math.nan
    trained = scalar(about.get("trained_strength"))
    place = int(np.argmin(np.abs(strengths - trained))) if math.isfinite(trained) else len(strengths) // 2
    unit = {"degrees": "°", "pixels": " pixels"}.get(str(about.get("unit")), "")
    return float(strengths[place]), unit, float(shares[place])


def robust(facts: Facts) -> Answer | None:
    """How far accuracy falls under the strongest corruptions, beside raw inputs."""
    severities, accuracy = facts.corrupted(CODES)
    if len(severities) < 2:
        return None
    clean, worst = float(accuracy[0]), float(accuracy[-1])
    level, raw = severities[-1], facts.corrupted("raw")[1]
    curves = {name: curve(about, "severities", "accuracy", CODES)[1] for name, about in facts.corruptions().items()}
    last = {name: float(values[-1]) for name, values in curves.items() if len(values)}
    text = (
        f"At severity {number(level)} of {count(len(last))} corruptions the probe’s accuracy falls from "
        f"{percentage(clean)} to {percentage(worst)} on average"
    )
    if len(raw) == len(accuracy):
        lost, lost_raw = clean - worst, float(raw[0] - raw[-1])
        more = "less than" if lost < lost_raw - _NEAR else "more than" if lost > lost_raw + _NEAR else "as much as"
        text += f", {more} on raw inputs ({percentage(float(raw[0]))} to {percentage(float(raw[-1]))})"
    hardest, easiest = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])
    more_words = [f"Hardest: {_plain(hardest)} ({percentage(last[hardest])}); easiest: {_plain(easiest)} "
                  f"({percentage(last[easiest])})."] if len(last) > 1 else []  # fmt: skip
    return Answer("How robust are they?", f"{text}.", more_words)


def compact(facts: Facts) -> Answer | None:
    """How many ordered dimensions are as good as the whole code, and how many directions the codes use."""
    lengths, ordered = _by_length(facts, "ordered")
    sentences = []
    if len(lengths) > 1:
        whole, width = _whole(facts)
        enough = enough_dimensions(facts)
        if math.isfinite(enough):
            reached = float(ordered[lengths == enough][0])
            text = (
                f"The first {count(enough)} of {count(width)} ordered dimensions are as good as the whole code to "
                f"within one point ({percentage(reached)} against {percentage(whole)})"
            )
        else:
            enough, reached = float(lengths[-1]), float(ordered[-1])
            text = (
                f"No shorter ordered code is as good as the whole one of {count(width)} dimensions "
                f"({percentage(whole)}): the first {count(enough)} reach {percentage(reached)}"
            )
        pca = dict(zip(*(each.tolist() for each in _by_length(facts, "pca")), strict=True))
        beside = (
            f"; as many principal components of the inputs reach {percentage(pca[enough])}" if enough in pca else ""
        )
        sentences.append(f"{text}{beside}.")
    rank, values = scalar(facts.run.measures.get("rank_me")), facts.spectrum().get("values")
    if math.isfinite(rank):
        of = f" of {count(len(values))}" if isinstance(values, list) and values else ""
        sentences.append(f"Their variance is spread over about {number(rank, 2)}{of} directions (RankMe).")
    return Answer("How compact are they?", sentences[0], sentences[1:]) if sentences else None


def enough_dimensions(facts: Facts) -> float:
    """The shortest ordered code that loses no more than a point of the whole one's accuracy; NaN without one."""
    lengths, ordered = _by_length(facts, "ordered")
    near = lengths[ordered >= _whole(facts)[0] - _NEAR] if len(lengths) else lengths
    return float(near[0]) if len(near) else math.nan


def _by_length(facts: Facts, kind: str) -> tuple[Array, Array]:
    """Numbers of dimensions and the accuracies with so many, where they were measured."""
    lengths, accuracy = curve(mapping(facts.probes.get("length")), "dimensions", "accuracy", kind)
    known = np.isfinite(accuracy)
    return lengths[known], accuracy[known]


def _whole(facts: Facts) -> tuple[float, float]:
    """Accuracy of a linear probe of the whole code, and how long that is."""
    lengths, accuracy = _by_length(facts, "unordered")
    if not len(lengths):
        lengths, accuracy = _by_length(facts, "ordered")
    return float(accuracy[-1]), float(lengths[-1])


def overfits(facts: Facts) -> Answer | None:
    """The objective on training examples beside that on held-out ones."""
    train, heldout = (scalar(facts.run.measures.get(name)) for name in ("train_objective", "heldout_objective"))
    if not (math.isfinite(train) and math.isfinite(heldout)):
        return None
    gap = heldout - train
    share = gap / abs(train) if train else math.nan
    worse = f"{number(100 * share, 2)}{THIN}% " if math.isfinite(share) and share > 0 else ""
    text = f"The objective is {number(train)} on training examples and {number(heldout)} on held-out ones"
    return Answer("Do they overfit?", f"{text}: {worse}worse." if gap > 0 else f"{text}: no worse.")


def headline(facts: Facts, heldout: float = math.nan) -> str:
    """The one sentence that matters most: what is wrong, else how good, else whatever can be said."""
    told = answers(facts, heldout)
    return told[0].text if told else "Nothing could be measured of the codes: training ended before its last step."


def percentage(share: float) -> str:
    """A share in per cent.

    Example:
        >>> percentage(0.8234).replace(THIN, " "), percentage(1.0).replace(THIN, " ")
        ('82.3 %', '100 %')
    """
    return f"{number(100 * share, 3).removesuffix('.0')}{THIN}%" if math.isfinite(share) else "—"


def _plain(name: str) -> str:
    """A transformation or corruption within a sentence."""
    return _WORDS.get(name, name.replace("_", " "))


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
