"""Layers of an inspection as CSV."""

import csv
import io
from pathlib import Path
from typing import Any

from lsdr.runs import write_text

_LEFT_OUT = ("spectrum", "heads", "duplicated_examples")


def write_csv(layers: list[dict[str, Any]], path: Path) -> None:
    """Write one row a layer; what is nested becomes a column of its own ("delta.relative"), lists are joined.

    Args:
        layers: Of an inspection.
        path: The file; replaced in one step.
    """
    rows = [_flat(layer) for layer in layers]
    every = dict.fromkeys(column for row in rows for column in row)
    # What is nested in one layer and missing in another is no column of its own.
    columns = [column for column in every if not any(other.startswith(f"{column}.") for other in every)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _flat(layer: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in layer.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[prefix + name] = " ".join(str(each) for each in value)
        else:
            flat[prefix + name] = value
    return flat
