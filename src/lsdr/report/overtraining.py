"""Warnings that a fine-tune has begun to overtrain, in words."""

import math
from typing import Any

from lsdr.report.load import Results
from lsdr.report.numbers import count
from lsdr.report.plain import scalar

KIND = "overtraining"
"""What such an event is called in events.jsonl."""


def overtraining(results: Results) -> list[str]:
    """One sentence for each warning, run by run in the order of the steps."""
    return [
        ("" if results.single else f"{run.name}: ") + _sentence(event)
        for run in results.runs
        for event in run.events
        if event.get("kind") == KIND
    ]


def _sentence(event: dict[str, Any]) -> str:
    step, message = scalar(event.get("step")), str(event.get("message") or "").rstrip(".")
    return (f"at step {count(step)} " if math.isfinite(step) else "") + f"{message}."
