"""How much of the data each method covers, beside a perfect sampler and beside published results."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.report.load import Method, Results, Run
from lsdr.report.numbers import count, median, number
from lsdr.report.plain import mapping, scalar, sequence

_COLUMNS = ("modes", "high_quality", "reverse_kl", "reverse_kl_all", "precision", "recall", "density", "coverage")
_SHARES = ("high_quality", "precision", "recall", "coverage")


@dataclass(frozen=True)
class Column:
    """One measure of the table."""

    label: str
    hint: str


@dataclass(frozen=True)
class Row:
    """One method, or the perfect sampler."""

    method: str
    note: str
    cells: list[tuple[str, str]]
    """Value and its spread, in the order of the columns."""


def coverage(results: Results) -> tuple[list[Column], list[Row]]:
    """The measures that any run has, and a row for each method under that of a perfect sampler."""
    names = [name for name in _COLUMNS if any(name in run.measures for run in results.runs)]
    columns = [
        Column(results.label(name), {"lower": "lower is better", "higher": "higher is better"}.get(
            str(results.about(name).get("better")), ""))
        for name in names
    ]  # fmt: skip
    perfect = perfect_sampler(results)
    rows = []
    if any(name in perfect for name in names):
        rows.append(Row("", "", [_ideal(name, perfect) for name in names]))
    for method in sorted(results.methods, key=lambda each: each.name != results.baseline):
        measured = [run for run in method.runs if any(name in run.measures for name in names)]
        note = f"{len(measured)} of {len(method.runs)} seeds" if len(measured) < len(method.runs) else ""
        rows.append(Row(method.name, note, [spread_cell(name, measured) for name in names]))
    return (columns, rows) if names else ([], [])


def perfect_sampler(results: Results) -> dict[str, Any]:
    """Mean and "sd" by measure of as many draws from the data itself, from the first run that has them."""
    return next((found for run in results.runs if (found := mapping(run.curves.get("perfect")))), {})


def perfect_cell(results: Results, name: str) -> str:
    """A perfect sampler's value and spread in one cell."""
    return " ".join(filter(None, _ideal(name, perfect_sampler(results))))


def _ideal(name: str, perfect: dict[str, Any]) -> tuple[str, str]:
    about = mapping(perfect.get(name))
    mean, deviation = scalar(about.get("mean")), scalar(about.get("sd"))
    if not math.isfinite(mean):
        return "—", ""
    return shown(name, mean), f"± {shown(name, deviation)}" if deviation > 0 else ""


def spread_cell(name: str, runs: list[Run]) -> tuple[str, str]:
    """Median of some runs' values, and from the least to the greatest where they differ."""
    values = [run.measures[name] for run in runs if name in run.measures]
    if not values:
        return "—", ""
    spread = f"{shown(name, min(values))} to {shown(name, max(values))}" if min(values) < max(values) else ""
    return shown(name, median(values)), spread


def shown(name: str, value: float) -> str:
    """A measure's value: shares in per cent, whole modes as such.

    Example:
        >>> shown("high_quality", 0.5), shown("modes", 24.0), shown("reverse_kl", 0.0123)
        ('50\u202f%', '24', '0.0123')
    """
    if name in _SHARES:
        return number(100 * value, 3).removesuffix(".00") + "\u202f%"
    return count(value) if name == "modes" and float(value).is_integer() else number(value)


def modes_of_run(run: Run) -> dict[str, Any]:
    """The counts of samples by mode that a run left; empty without."""
    modes = mapping(run.curves.get("modes"))
    return modes if any(scalar(each) >= 0 for each in sequence(modes.get("counts"))) else {}


def worst_run(method: Method) -> Run | None:
    """The measured run with the fewest modes, and of those the largest divergence: a collapse hides in no median."""

    def rank(run: Run) -> tuple[float, float, float]:
        values = run.measures
        broken = run.state != "finished"
        first = values.get("modes", values.get("coverage", math.inf))
        return first, -values.get("reverse_kl_all", values.get("reverse_kl", values.get("fid", 0.0))), float(broken)

    measured = [run for run in method.runs if run.measures]
    return min(measured, key=rank, default=None)
