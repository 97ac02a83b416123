"""What was found of a denoiser's operator, on the terminal."""

import shutil
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsdr.cli.inspect_view import safe
from lsdr.report.numbers import signed
from lsdr.report.operator.artifacts import artifacts
from lsdr.report.operator.levels import levels_in
from lsdr.report.operator.page import facts
from lsdr.report.operator.rows import Column, table
from lsdr.report.plain import mapping, mappings, scalar, vector

_WIDTH = 100
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show_operator(found: dict[str, Any]) -> None:
    """Print the headline, the findings, a row a noise level, the sampler's exponents and the samples' artefacts.

    Args:
        found: What `inspect_operator` returns; whatever is missing is left out.
    """
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH) if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, highlight=False)
    console.print(Text(safe(found.get("source") or "denoiser"), style="bold"))
    console.print(Text(" · ".join(safe(fact) for fact in facts(found))))
    if found.get("why"):
        console.print(Text(f"derivatives: {safe(found['why'])}", style="dim"))
    console.print()
    _findings(console, mappings(found.get("findings")))
    _levels(console, table(levels_in(found.get("levels"))))
    _sampler(console, found)
    console.print(Text("more: --html FILE plots everything, --json FILE has all numbers", style="dim"))


def _findings(console: Console, findings: list[dict[str, Any]]) -> None:
    if not findings:
        console.print(Text("Nothing looks wrong.", style="green"))
        console.print()
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


def _levels(console: Console, columns: list[Column]) -> None:
    if not columns:
        console.print("No noise level was measured.")
        return
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    shown = _fitting(columns, console.width)
    for column in shown:
        drawn.add_column(column.label, justify="right", no_wrap=True)
    for row in zip(*(column.cells for column in shown), strict=True):
        drawn.add_row(*row)
    console.print(drawn)
    console.print()
    console.print(Text("; ".join(f"{column.label}: {column.hint}" for column in shown) + ".", style="dim"))
    console.print()


def _fitting(columns: list[Column], width: int) -> list[Column]:
    """The columns a terminal has room for; where it is narrow, what helps least goes first."""
    shown = list(columns)
    for spare in ("10–90 %", "Gaussian", "least μ", "σ next", "MSE", "σ² tr J", "asym."):
        if sum(max(map(len, (column.label, *column.cells))) + 2 for column in shown) <= width + 1:
            break
        shown = [column for column in shown if column.label != spare]
    return shown


def _sampler(console: Console, found: dict[str, Any]) -> None:
    about = mapping(found.get("lyapunov"))
    exponents = [value for value in vector(about.get("exponents")) if value == value]
    if exponents:
        told = ", ".join(signed(float(value)) for value in exponents)
        steps = scalar(about.get("steps"))
        over = f" over {steps:.0f} steps" if steps == steps else ""
        console.print(Text(f"Lyapunov exponents of the sampler{over}, nats a step: {told}"))
    if isinstance(found.get("artifacts"), list):
        peaks = artifacts(found["artifacts"])
        if not peaks:
            console.print(Text("No grids or stripes in the samples."))
        for peak in peaks:
            console.print(Text(f"In the samples: {peak.words}, {peak.strength} above their surroundings"))
    console.print()
