"""What was found of a generator, on the terminal."""

import math
import shutil
import sys
import textwrap
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsdr.cli.inspect_view import safe
from lsdr.report.gan.page import facts, measured
from lsdr.report.numbers import THIN, count
from lsdr.report.plain import mapping, mappings, scalar, sequence, vector

_WIDTH = 100
_BAR = 24
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_ANSWERS = {"No sign": "green", "Yes": "bold red"}
_MOST_MODES = 30
_COPIES = 3


def show_gan(found: dict[str, Any]) -> None:
    """Print the answer, the findings, what was measured, and the samples by mode.

    Args:
        found: What `inspect_gan` found; whatever is missing is left out.
    """
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH) if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, highlight=False)
    console.print(Text(safe(found.get("source") or "generator"), style="bold"))
    console.print(Text(" · ".join(safe(fact.replace(THIN, " ")) for fact in facts(found))))
    console.print()
    answer = safe(found.get("answer") or "")
    style = next((style for start, style in _ANSWERS.items() if answer.startswith(start)), "yellow")
    console.print(Text("Is this mode collapse?"))
    console.print(Text(textwrap.indent(textwrap.fill(answer, width - 2), "  "), style=style))
    console.print()
    _findings(console, mappings(found.get("findings")))
    _numbers(console, found)
    _modes(console, mapping(found.get("modes")))
    _nearest(console, mapping(found.get("memorisation")))
    console.print(Text("more: --html FILE shows samples and plots, --json FILE has all numbers", style="dim"))


def _findings(console: Console, findings: list[dict[str, Any]]) -> None:
    if not findings:
        return
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for each in findings:
        severity = str(each.get("severity") or "note")
        text = Text(safe(each.get("message") or ""))
        text.append(f" [{safe(each.get('kind') or 'finding')}]", style="dim")
        grid.add_row(Text(f"  {safe(severity)}", style=_STYLES.get(severity, "")), text)
    console.print(Text("Findings"))
    console.print(grid)
    console.print()


def _numbers(console: Console, found: dict[str, Any]) -> None:
    rows = measured(found)
    if not rows:
        return
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    drawn.add_column("measure", overflow="fold")
    for name in ("samples", "perfect or real"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(row.label, row.value, row.ideal)
    console.print(drawn)
    console.print()


def _modes(console: Console, modes: dict[str, Any]) -> None:
    """A bar a mode, against the data's share; of many only the extremes would say anything, and these stand above."""
    counts, expected = vector(modes.get("counts")), vector(modes.get("expected"))
    if not 0 < len(counts) <= _MOST_MODES or len(expected) != len(counts):
        return
    total, names = max(float(counts.sum()), 1.0), [str(each) for each in sequence(modes.get("names"))]
    largest = max(float((counts / total).max()), float(expected.max()))
    grid = Table.grid(padding=(0, 1))
    for place, amount in enumerate(counts):
        share = float(amount) / total
        name = names[place] if place < len(names) else str(place + 1)
        grid.add_row(
            f"  {safe(name)}",
            Text("█" * math.ceil(_BAR * share / largest) if amount else "·", style="" if amount else "bold red"),
            Text(f"{100 * share:.1f} %"),
            Text(f"data {100 * float(expected[place]):.1f} %", style="dim"),
        )
    console.print(Text(f"Samples by {safe(modes.get('kind') or 'mode')}"))
    console.print(grid)
    console.print()


def _nearest(console: Console, memorisation: dict[str, Any]) -> None:
    pairs = mappings(memorisation.get("nearest"))[:_COPIES]
    if not pairs or not scalar(memorisation.get("copies")) > 0:
        return
    told = "; ".join(f"sample {count(scalar(each.get('sample')))}: {safe(each.get('train'))}" for each in pairs)
    console.print(Text(f"nearest to a training example are {told}", style="dim"))
