"""What went wrong: runs that did not finish, and what the guard caught."""

import math
from dataclasses import dataclass
from typing import Any

from lsdr.report.gan.words import EVENTS
from lsdr.report.load import Results, Run
from lsdr.report.numbers import count, number
from lsdr.report.overtraining import KIND as OVERTRAINING
from lsdr.report.plain import mapping, scalar, sequence
from lsdr.report.representation.words import EVENTS as OF_CODES

_MOST_EVENTS = 40


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    run: str
    state: str
    reached: str
    message: str


def failures(results: Results) -> list[Failure]:
    """Every run that did not finish, with what it said."""
    return [
        Failure(run.name, run.state, _reached(run), str(run.status.get("message") or ""))
        for run in results.runs
        if run.state != "finished"
    ]


def _reached(run: Run) -> str:
    step, steps = scalar(run.status.get("step")), scalar(run.status.get("steps"))
    if not math.isfinite(step):
        return "—"
    return f"step {count(step)}" + (f" of {count(steps)}" if math.isfinite(steps) else "")


@dataclass(frozen=True)
class Event:
    """Something the guard caught."""

    run: str
    step: str
    kind: str
    where: str
    message: str
    action: str
    examples: str
    spectra: str


def events(results: Results) -> tuple[list[Event], int]:
    """The first guard events, and how many more there are."""
    others = (OVERTRAINING, *EVENTS, *OF_CODES)  # shown where the runs are judged
    found = [(run, record) for run in results.runs for record in run.events if record.get("kind") not in others]
    return [_event(run, record) for run, record in found[:_MOST_EVENTS]], max(len(found) - _MOST_EVENTS, 0)


def _event(run: Run, record: dict[str, Any]) -> Event:
    names = [str(name) for name in sequence(record.get("names"))] or [
        f"image {index}" for index in sequence(record.get("indices"))
    ]
    more = f" and {count(len(names) - 8)} more" if len(names) > 8 else ""
    where = [str(record[key]) for key in ("module", "direction") if record.get(key)]
    spectra = mapping(record.get("spectra"))
    return Event(
        run=run.name,
        step=count(scalar(record.get("step"))),
        kind=str(record.get("kind") or "").replace("_", " "),
        where=", ".join(where),
        message=str(record.get("message") or ""),
        action=str(record.get("action") or ""),
        examples=", ".join(names[:8]) + more,
        spectra="; ".join(f"{layer}: {_statistics(values)}" for layer, values in list(spectra.items())[:6]),
    )


def _statistics(value: object) -> str:
    known = {name: scalar(item) for name, item in mapping(value).items()}
    words = [f"{name.replace('_', ' ')} {number(item)}" for name, item in known.items() if math.isfinite(item)]
    return ", ".join(words) or "not finite"
