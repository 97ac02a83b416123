"""A reduction on the terminal."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsdr.cli.inspect_view import safe as _without_controls
from lsdr.report.numbers import THIN
from lsdr.report.regression.rows import Column, model_table, path_table
from lsdr.report.regression.steps import chosen_place, shortened, steps_in
from lsdr.report.regression.words import DESCRIPTIVE, facts, notes, outcome, split_sentence, title

_WIDTH = 100
_STEPS, _COLUMNS = 30, 40


def show_reduction(found: Mapping[str, Any], *, written: bool = False) -> None:
    """Print the path, shortened around the choice where it is long, what came out, and the chosen model.

    Args:
        found: What `Reduction.to_json` returns; whatever is missing is left out.
        written: Whether a page is written, which need not be suggested then.
    """
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH) if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, highlight=False)
    source = found.get("source")
    console.print(Text(safe(title(found)) + (f" · {safe(source)}" if source else ""), style="bold"))
    console.print(Text(" · ".join(safe(fact) for fact in facts(found))))
    if found.get("reason"):
        console.print(Text(safe(found["reason"]), style="dim"))
    console.print()
    _path(console, found)
    for text in outcome(found):
        console.print(Text(safe(text)))
    console.print()
    for note in notes(found):
        console.print(Text(f"Note: {safe(note)}", style="yellow"))
    if notes(found):
        console.print()
    _model(console, found)
    more = "--json FILE has all numbers" if written else "--html FILE plots everything, --json FILE has all numbers"
    console.print(Text(f"more: {more}, --csv FILE every step", style="dim"))


def _path(console: Console, found: Mapping[str, Any]) -> None:
    steps = steps_in(found)
    if not steps:
        console.print(Text("There is no step."))
        return
    columns, marks = path_table(found)
    shown = _fitting(columns, console.width - 2, ("Cp", "BIC", "AIC", "training MSE", "±", "its t"))
    place = chosen_place(found, steps)
    table = _table(["", *(each.label for each in shown)], left=("", "goes next"))
    rows = shortened(len(steps), _STEPS, place)
    seen = [marks[at] for at in rows if at is not None]
    for at in rows:
        if at is None:
            table.add_row("", *("…" for _ in shown), style="dim")
            continue
        mark = {"chosen": "►", "least": "·"}.get(marks[at], "")
        style = "bold green" if marks[at] == "chosen" else ""
        table.add_row(mark, *(Text(safe(each.cells[at])) for each in shown), style=style)
    console.print(table)
    told = [f"{sign} {what}" for sign, what in (("►", "chosen"), ("·", "least held-out error"))]
    present = [text for text, mark in zip(told, ("chosen", "least"), strict=True) if mark in seen]
    console.print()
    if present:
        console.print(Text("; ".join(present), style="dim"))
        console.print()


def _model(console: Console, found: Mapping[str, Any]) -> None:
    columns = model_table(found)
    if not columns or not columns[0].cells:
        return
    shown = _fitting(columns, console.width, ("std. error", "split: coefficient", "split: 95 %", "kept", "split: p"))
    table = _table([each.label for each in shown], left=("column",))
    count = len(columns[0].cells)
    for at in range(min(count, _COLUMNS)):
        table.add_row(*(Text(safe(each.cells[at])) for each in shown))
    console.print(Text("The chosen model", style="bold"))
    console.print(table)
    if count > _COLUMNS:
        console.print(Text(f"and {count - _COLUMNS} more columns (--json FILE has them)", style="dim"))
    console.print()
    console.print(Text(DESCRIPTIVE))
    if split_sentence(found):
        console.print(Text(safe(split_sentence(found))))
    console.print()


def _table(labels: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for label in labels:
        # A name may be longer than the terminal is wide; numbers never are.
        name = label in left and label != ""
        table.add_column(label, justify="left" if label in left else "right", no_wrap=not name,
                         overflow="fold" if name else "ellipsis")  # fmt: skip
    return table


def _fitting(columns: Sequence[Column], width: int, spare: Sequence[str]) -> list[Column]:
    """The columns a terminal has room for; where it is narrow, what helps least goes first. Names may be folded."""
    shown = list(columns)
    for label in spare:
        if sum(min(max(map(len, (each.label, *each.cells))), 24) + 2 for each in shown) <= width:
            break
        shown = [each for each in shown if each.label != label]
    return shown


def safe(text: object) -> str:
    """Text of a table's making without what a terminal would obey; our own thin spaces stay."""
    return THIN.join(_without_controls(part) for part in str(text).split(THIN))
