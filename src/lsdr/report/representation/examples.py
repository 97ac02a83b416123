"""Nearest neighbours, and what each direction of the codes responds to, of a lone run or of each method's first."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.report.images import Picture, picture
from lsdr.report.numbers import number
from lsdr.report.plain import mapping, mappings, scalar, sequence
from lsdr.report.representation.files import Facts
from lsdr.report.representation.words import percentage

_MOST = 8


@dataclass(frozen=True)
class Example:
    """One example in words."""

    words: str
    note: str


@dataclass(frozen=True)
class Group:
    """A query and its neighbours, or a direction and its two ends."""

    title: str
    note: str
    first: list[Example]
    second: list[Example]
    responds: str


@dataclass(frozen=True)
class Shown:
    """What is shown of one method's run."""

    method: str
    summary: str
    pictures: list[Picture]
    groups: list[Group]
    """Without pictures: every example in words."""
    rows: list[str]
    """With pictures: what there is to say of their rows, in order."""


def neighbours(every: dict[str, list[Facts]], notes: list[str]) -> list[Shown]:
    """Held-out examples and the training examples with the nearest codes."""
    found = []
    for method, facts in _firsts(every):
        groups = [_query(each) for each in mappings(facts.neighbours.get("queries"))[:_MOST]]
        alt = "Rows of a held-out example followed by the training examples whose codes are nearest."
        caption = "Each row: a held-out example, then the training examples with the nearest codes"
        pictures = _pictures(facts, ("neighbours",), caption, alt, notes)
        agreement, chance = (scalar(facts.neighbours.get(name)) for name in ("agreement", "chance"))
        summary = ""
        if math.isfinite(agreement):
            by_chance = f"; by chance {percentage(chance)}" if math.isfinite(chance) else ""
            summary = f"{percentage(agreement)} of the nearest neighbours have the example’s label{by_chance}."
        if groups or pictures:
            found.append(Shown(method, summary, pictures, [] if pictures else groups, []))
    return found


def directions(every: dict[str, list[Facts]], notes: list[str]) -> list[Shown]:
    """The examples at the two ends of each ordered direction, and what in them it responds to."""
    found = []
    for method, facts in _firsts(every):
        groups = [_direction(each) for each in mappings(facts.directions.get("directions"))[:_MOST]]
        alt = "Rows of examples at the low and at the high end of each direction."
        caption = "Each row is a direction, the most invariant first: the examples at its low end, then at its high end"
        pictures = _pictures(facts, ("directions",), caption, alt, notes)
        alt = "For each direction an example and the pixels to which the direction responds."
        caption = "The same examples: the brighter a pixel, the more the direction changes with it"
        pictures += _pictures(facts, ("attribution",), caption, alt, notes)
        if groups or pictures:
            rows = [_row(group) for group in groups] if pictures else []
            found.append(Shown(method, "", pictures, [] if pictures else groups, rows))
    return found


def _row(group: Group) -> str:
    """A direction whose examples are shown as pictures."""
    return f"{group.note}; responds to {group.responds}." if group.responds else f"{group.note}."


def _firsts(every: dict[str, list[Facts]]) -> list[tuple[str, Facts]]:
    return [(method, runs[0]) for method, runs in every.items() if runs]


def _pictures(facts: Facts, names: tuple[str, ...], caption: str, alt: str, notes: list[str]) -> list[Picture]:
    found = [picture(facts.run.directory / f"{name}.png", caption, alt, notes) for name in names]
    return [each for each in found if each]


def _query(query: dict[str, Any]) -> Group:
    return Group(_words(query), _label(query), [_example(each) for each in mappings(query.get("neighbours"))], [], "")


def _direction(direction: dict[str, Any]) -> Group:
    rank, correlation, share = (scalar(direction.get(name)) for name in ("rank", "correlation", "share"))
    note = f"agreement of two views {number(correlation)}" if math.isfinite(correlation) else ""
    note += f", {percentage(share)} of the variance" if math.isfinite(share) else ""
    low, high = ([_example(each) for each in mappings(direction.get(end))] for end in ("bottom", "top"))
    return Group(f"Direction {number(rank)}", note, low, high, _responds(direction))


def _responds(direction: dict[str, Any]) -> str:
    """What it responds to most: words or columns, with their weights."""
    parts = []
    for pair in sequence(direction.get("responds"))[:_MOST]:
        about = mapping(pair) or dict(zip(("name", "weight"), sequence(pair), strict=False))
        weight = scalar(about.get("weight"))
        if about.get("name") is not None:
            parts.append(f"{about['name']}" + (f" ({number(weight, 2)})" if math.isfinite(weight) else ""))
    return ", ".join(parts)


def _example(example: dict[str, Any]) -> Example:
    similarity = scalar(example.get("similarity"))
    parts = [_label(example), number(similarity, 2) if math.isfinite(similarity) else ""]
    return Example(_words(example), ", ".join(part for part in parts if part))


def _words(example: dict[str, Any]) -> str:
    return str(example.get("text") or example.get("name") or "")


def _label(example: dict[str, Any]) -> str:
    return "" if example.get("label") is None else str(example["label"])
