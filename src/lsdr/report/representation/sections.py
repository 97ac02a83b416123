"""What the report of a representation shows beside what every report does."""

import math
from typing import Any

from lsdr.report.figures.code_spectra import spectrum_plots
from lsdr.report.figures.representation import (
    corruption_plots,
    corruptions_plot,
    ignored_plot,
    invariance_plots,
    label_plots,
    length_plot,
)
from lsdr.report.images import Picture, picture
from lsdr.report.load import Results
from lsdr.report.numbers import count, median, plural
from lsdr.report.plain import mapping, scalar
from lsdr.report.representation.examples import directions, neighbours
from lsdr.report.representation.files import CODES, Facts, facts
from lsdr.report.representation.tables import LAYER_COLUMNS, beside, layer_table
from lsdr.report.representation.words import EVENTS, answers, collapse, percentage, wrong

_MOST = 8


def representation_sections(results: Results, notes: list[str]) -> dict[str, Any]:
    """Everything that the template's part for representations is filled with.

    Args:
        results: The runs.
        notes: Receives what could not be read.
    """
    every = facts(results, notes)
    columns, rows = beside(every)
    heldout = scalar(mapping(results.record.get("data")).get("heldout"))
    return {
        "noticed": _noticed(results),
        "answers": answers(every[results.methods[0].name][0], heldout) if results.single else [],
        "methods": [] if results.single else [(name, told) for name, runs in every.items() if (told := _about(runs))],
        "columns": columns,
        "rows": rows,
        "labels": label_plots(results, every),
        "invariance": invariance_plots(results, every),
        "retrieval": invariance_plots(results, every, "retrieval"),
        "views": _views(results, notes),
        "ignored": ignored_plot(results, every),
        "robust": corruptions_plot(results, every),
        "corruptions": corruption_plots(results, every),
        "length": length_plot(results, every),
        "spectra": spectrum_plots(results, every),
        "layer_columns": list(LAYER_COLUMNS.values()),
        "layers": layer_table(results, every),
        "neighbours": neighbours(every, notes),
        "directions": directions(every, notes),
    }


def _views(results: Results, notes: list[str]) -> Picture | None:
    """Images above their views, of the first run that left a picture of them: all runs have the same."""
    caption = "Examples in the first row; under each two of the views whose codes shall agree"
    paths = (run.directory / "views.png" for run in results.runs)
    return next((found for path in paths if (found := picture(path, caption, "Images above two views.", notes))), None)


def _noticed(results: Results) -> list[tuple[str, str]]:
    """What was noticed of the codes while runs trained: kind and message."""
    found = [(run, event) for run in results.runs for event in run.events if event.get("kind") in EVENTS]
    return [
        (str(event["kind"]), f"{run.name}, step {count(scalar(event.get('step')))}: {event.get('message') or ''}.")
        for run, event in found[:_MOST]
    ]


def _about(runs: list[Facts]) -> list[str]:
    """One method of a comparison in words: what went wrong, and whether it is worth more than raw inputs."""
    measured = [each for each in runs if len(each.shares("linear"))]
    broken = [each for each in runs if wrong(each)]
    told = []
    if broken:
        first = collapse(broken[0])
        words = first.text if first else str(wrong(broken[0])[0].get("message") or "")
        told.append(f"Something is wrong in {len(broken)} of {plural(len(runs), 'run')}; {broken[0].run.name}: {words}")
    for share in sorted({float(share) for each in measured for share in each.shares("linear")})[:1]:
        pairs = [(each.accuracy("linear", share, CODES), each.accuracy("linear", share, "raw")) for each in measured]
        pairs = [(own, raw) for own, raw in pairs if math.isfinite(own)]
        if not pairs:
            continue
        own, raw = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        text = f"A linear probe with {percentage(share)} of the labels is right for {percentage(own)}"
        if math.isfinite(raw):
            ahead = sum(pair[0] > pair[1] for pair in pairs)
            text += f", on raw inputs for {percentage(raw)}: more in {ahead} of {plural(len(pairs), 'seed')}"
        told.append(f"{text}.")
    return told
