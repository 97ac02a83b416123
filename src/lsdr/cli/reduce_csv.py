"""The steps of a reduction as CSV."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsdr.report.plain import mapping
from lsdr.report.regression.steps import chosen_place, steps_in
from lsdr.runs import write_text


def write_steps(found: Mapping[str, Any], path: Path) -> None:
    """Write one row a step, the full model first: its numbers, then `params.COLUMN` and `tvalues.COLUMN`.

    Args:
        found: What `Reduction.to_json` returns.
        path: The file; replaced in one step. What is missing or not finite is an empty cell.
    """
    steps = steps_in(found)
    chosen = chosen_place(found, steps)
    rows = [{**_row(step), "chosen": int(place == chosen)} for place, step in enumerate(steps)]
    head = dict.fromkeys(name for row in rows for name in row if "." not in name)
    columns = [*head, *dict.fromkeys(name for row in rows for name in row if "." in name)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _row(step: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in step.items() if not isinstance(value, dict | list)}
    for what in ("params", "tvalues"):
        row |= {f"{what}.{name}": value for name, value in mapping(step.get(what)).items()}
    return row
