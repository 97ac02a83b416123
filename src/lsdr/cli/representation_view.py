"""What became of a representation, for the terminal."""

from pathlib import Path

from lsdr.report.load import load
from lsdr.report.plain import mapping, scalar
from lsdr.report.representation.files import CODES, facts
from lsdr.report.representation.tables import beside
from lsdr.report.representation.words import answers

_NOTHING = "Nothing could be measured of the codes: training ended before its last step."


def outcome(directory: Path) -> str:
    """The codes beside raw inputs, principal components and an untrained encoder, and what that says.

    Args:
        directory: A run that is over, whether it has come to its measures or not.
    """
    results = load(directory)
    every = facts(results, [])
    lone = every[results.methods[0].name][0]
    columns, rows = beside(every)
    names = [CODES if row.method else row.name for row in rows]
    order = sorted(range(len(rows)), key=lambda place: names[place] != CODES)
    lines = []
    if columns:
        table = [["", *(names[place] for place in order)]]
        table += [
            [f"{column.label[:1].upper()}{column.label[1:]}", *(rows[place].cells[k][0] for place in order)]
            for k, column in enumerate(columns)
        ]
        widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
        for row in table:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
        lines.append("")
    told = answers(lone, scalar(mapping(results.record.get("data")).get("heldout")))
    return "\n".join([*lines, *(f"{each.question} {each.text}" for each in told)]) if told else _NOTHING
