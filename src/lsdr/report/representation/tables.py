"""The codes of every method beside what needs no training, in one table; and the layers of a lone run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lsdr.report.load import Results
from lsdr.report.numbers import count, median, number
from lsdr.report.plain import scalar, vector
from lsdr.report.representation.files import CODES, REFERENCES, Facts
from lsdr.report.representation.words import at_strength, enough_dimensions, percentage


@dataclass(frozen=True)
class Column:
    """One measure of the table."""

    label: str
    hint: str
    value: Callable[[Facts, str], float]
    share: bool = True


@dataclass(frozen=True)
class Row:
    """One method, or a reference."""

    name: str
    method: bool
    cells: list[tuple[str, str]]
    """Value and its spread, in the order of the columns."""


def beside(every: dict[str, list[Facts]]) -> tuple[list[Column], list[Row]]:
    """What was measured of codes and references alike: columns, and a row for each reference and method."""
    columns = [
        column for column in _columns(every)
        if any(math.isfinite(column.value(facts, CODES)) for runs in every.values() for facts in runs)
    ]  # fmt: skip
    whole = [facts for runs in every.values() for facts in runs]
    rows = [_row(words, False, columns, whole, kind) for kind, words in REFERENCES.items()]
    rows = [row for row in rows if any(value != "—" for value, _ in row.cells)]
    if not columns:
        return [], []
    return columns, [*rows, *(_row(name, True, columns, runs, CODES) for name, runs in every.items())]


def _columns(every: dict[str, list[Facts]]) -> list[Column]:
    found = []
    for probe, words in (("linear", "linear probe"), ("knn", "neighbours")):
        shares = sorted({float(share) for runs in every.values() for facts in runs for share in facts.shares(probe)})
        for share in shares:
            labels = "all labels" if share >= 1 else f"{percentage(share)} of labels"
            found.append(Column(f"{words}, {labels}", "higher is better", _probe(probe, share)))
    return [
        *found,
        Column("variance kept under the transformations", "higher is more invariant", invariance),
        Column("accuracy under corruptions", "severities 1 to 5", corrupted),
        Column("dimensions as good as all", "fewer is more compact", _enough, share=False),
    ]


def _probe(probe: str, share: float) -> Callable[[Facts, str], float]:
    return lambda facts, kind: facts.accuracy(probe, share, kind)


def invariance(facts: Facts, kind: str) -> float:
    """Mean over the transformations trained with, or over all, of the share of variance that they leave."""
    about = facts.transformations()
    trained = {name: each for name, each in about.items() if each.get("trained")} or about
    return mean(value for each in trained.values() if (value := at_strength(each, kind)[2]) == value)


def corrupted(facts: Facts, kind: str) -> float:
    """Mean accuracy over all corruptions and severities but the clean one."""
    severities, accuracy = facts.corrupted(kind)
    return mean(accuracy[severities > 0].tolist())


def mean(values: object) -> float:
    """The mean of some numbers; NaN of none."""
    found = list(values)  # type: ignore[call-overload]
    return float(np.mean(found)) if found else math.nan


def _enough(facts: Facts, kind: str) -> float:
    return enough_dimensions(facts) if kind == CODES else math.nan


def _row(name: str, method: bool, columns: list[Column], runs: list[Facts], kind: str) -> Row:
    return Row(name, method, [_cell(column, [column.value(facts, kind) for facts in runs]) for column in columns])


def _cell(column: Column, values: list[float]) -> tuple[str, str]:
    """The median over runs, and from the least to the greatest where they differ."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "—", ""
    shown = percentage if column.share else count
    spread = f"{shown(min(known))} to {shown(max(known))}" if shown(min(known)) != shown(max(known)) else ""
    return shown(median(known)), spread


def layer_table(results: Results, every: dict[str, list[Facts]]) -> list[tuple[str, list[str]]]:
    """Of a lone run each layer's width and ranks, the codes last; nothing of a comparison."""
    if not results.single:
        return []
    facts = next(iter(every.values()))[0]
    layers = [*facts.layers(), *([facts.spectrum()] if facts.spectrum() else [])]
    return [
        (
            str(layer.get("name")),
            [
                count(len(vector(layer.get("values")))) if layer.get("values") else "—",
                *(number(scalar(layer.get(name))) for name in LAYER_COLUMNS),
            ],
        )
        for layer in layers
    ]


LAYER_COLUMNS = {
    "rank_me": "RankMe",
    "participation_ratio": "participation ratio",
    "alpha_req": "decay α",
    "lidar": "LiDAR",
}
"""Columns of the table of layers behind the width, by the names in spectra.json."""
