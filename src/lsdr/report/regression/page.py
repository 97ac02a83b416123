"""Write a reduction as one HTML file that needs no other and no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsdr.report.plain import mapping
from lsdr.report.regression.along import along_plots
from lsdr.report.regression.error import error_plots
from lsdr.report.regression.rows import Column, model_table, path_table
from lsdr.report.regression.stability import stability_plot
from lsdr.report.regression.steps import chosen_place, shortened, steps_in
from lsdr.report.regression.words import DESCRIPTIVE, facts, notes, outcome, split_sentence, title
from lsdr.report.render import render
from lsdr.runs import write_text

_ROWS = 300


def write_regression_page(found: Mapping[str, Any], path: Path) -> Path:
    """Write the page of one backward elimination.

    What was chosen and why, error and information criteria against size, coefficients and t along the path, selection
    frequencies, the chosen model beside its split-sample counterpart, and every step in a table. Whatever is missing or
    not finite is left out; a path of a thousand terms stays light. Without scripts everything but the plots works.
    Imports no torch.

    Args:
        found: What `lsdr reduce --json` writes, `Reduction.to_json()`.
        path: The HTML file; replaced in one step.

    Returns:
        The file written.

    Example:
        >>> import tempfile
        >>> steps = [{"size": 1, "removed": "area", "rss": 2.0}, {"size": 0, "rss": 3.0}]
        >>> write_regression_page({"n": 9, "steps": steps}, Path(tempfile.mkdtemp()) / "page.html").name
        'page.html'
    """
    write_text(path, render("regression", _content(mapping(found)), parts=("inspection",)))
    return path


def _content(found: dict[str, Any]) -> dict[str, Any]:
    steps = steps_in(found)
    columns, marks = path_table(found)
    shown = shortened(len(steps), _ROWS, chosen_place(found, steps))
    return {
        "title": title(found),
        "source": str(found.get("source") or ""),
        "facts": facts(found),
        "outcome": outcome(found),
        "descriptive": DESCRIPTIVE,
        "notes": notes(found),
        "reason": str(found.get("reason") or ""),
        "errors": error_plots(found),
        "along": along_plots(found),
        "stability": stability_plot(found),
        "model": _rows(model_table(found)),
        "split": split_sentence(found),
        "columns": columns,
        "rows": [
            None if at is None else {"cells": [each.cells[at] for each in columns], "mark": marks[at]} for at in shown
        ],
        "shortened": None in shown,
    }


def _rows(columns: list[Column]) -> dict[str, Any]:
    """Columns as a head and rows."""
    return {"columns": columns, "rows": list(zip(*(each.cells for each in columns), strict=True))}
