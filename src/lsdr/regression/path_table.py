"""A reduction as a table in plain text."""

import math
from typing import TYPE_CHECKING

from lsdr.regression.summary import number

if TYPE_CHECKING:
    from lsdr.regression.reduction import Reduction

# Paths longer than this are shown at both ends and around the choice.
_LONGEST = 30
_ENDS = 3
_AROUND = 8


def path_table(reduction: "Reduction") -> str:
    """The path, the choice and the notes; t values after selection are called descriptive."""
    heldout = any(math.isfinite(step.mse_heldout) for step in reduction.steps)
    head = ["", "size", "goes next", "t", "p", "RSS", "AIC", "BIC"] + (["held-out MSE", "+-"] if heldout else [])
    lines = [head]
    last = -1
    for position in shown_steps([step.size for step in reduction.steps], reduction.chosen.size):
        if position != last + 1:
            lines.append(["", "...", *[""] * (len(head) - 2)])
        last = position
        step = reduction.steps[position]
        gone = step.removed or ""
        statistic = "" if step.removed is None else f"{step.t:.3f}" if step.df == 1 else f"F {step.F:.3f}"
        p_value = "" if step.removed is None else f"{step.p_value:.3g}"
        line = ["*" if step.size == reduction.chosen.size else "", str(step.size), gone, statistic, p_value]
        line += [number(step.rss), number(step.aic), number(step.bic)]
        lines.append(line + ([number(step.mse_heldout), f"{step.mse_heldout_se:.3g}"] if heldout else []))
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if place in (0, 2) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*_heading(reduction), *table, *_below(reduction)])


def shown_steps(sizes: list[int], chosen: int) -> list[int]:
    """Positions of the steps worth printing: all of a short path; both ends and the choice of a long one."""
    count = len(sizes)
    if count <= _LONGEST:
        return list(range(count))
    centre = sizes.index(chosen)
    return [
        place for place in range(count) if place < _ENDS or place >= count - _ENDS or abs(place - centre) <= _AROUND
    ]


def _heading(reduction: "Reduction") -> list[str]:
    left_out = f" ({reduction.missing} left out: missing values)" if reduction.missing else ""
    return [
        f"{reduction.target}: {len(reduction.features)} terms, {reduction.n:g} rows{left_out}. {reduction.reason}",
        f"Standard errors: {reduction.errors}. t after selection is descriptive: the same rows chose the terms.",
    ]


def _below(reduction: "Reduction") -> list[str]:
    chosen = reduction.chosen
    lines = [f"* chosen: {chosen.size} terms ({', '.join(chosen.features) or 'none'}). {chosen.why}"]
    lines += [f"Never entered: {gone.column} ({gone.reason})." for gone in reduction.aliased]
    if reduction.split is not None:
        split = reduction.split
        lines.append(
            f"On the other half ({split.rows:g} rows, chosen on {split.rows_selection:g}), t values that hold: "
            + ", ".join(f"{name} {value:.3f}" for name, value in split.tvalues.items())
        )
    return lines + [f"Note: {note}" for note in reduction.notes]
