"""Values out of JSON files that may be missing, cut off or not what they should be."""

import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.report.thin import Array
from lsdr.runs import read_json


def records(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The records of a file line by line; lines that are not JSON are counted and left out."""
    if not path.exists():
        return
    broken = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line) if line.strip() else None
            except ValueError:
                broken += 1
                continue
            if isinstance(record, dict):
                yield record
    if broken > 1:  # a single broken line is the last one of a writer that was killed
        notes.append(f"{_short(path)}: {broken} lines are not JSON and are left out.")


def columns(path: Path, names: tuple[str, ...], notes: list[str]) -> dict[str, Array]:
    """Chosen columns of a file of records: a long run's file must not be held as objects."""
    found = {name: array("d") for name in names}
    for record in records(path, notes):
        for name, column in found.items():
            column.append(scalar(record.get(name)))
    return {name: np.array(column, dtype=np.float64) for name, column in found.items()}


def read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """A file's JSON object; empty, with a note, if it cannot be read, and empty if it is missing."""
    value = _read(path, notes)
    return dict(value) if isinstance(value, Mapping) else {}


def read_objects(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """A file's JSON list of objects; empty, with a note, if it cannot be read, and empty if it is missing."""
    return mappings(_read(path, notes))


def _read(path: Path, notes: list[str]) -> object:
    if not path.exists():
        return None
    try:
        found: object = read_json(path)
    except (ValueError, OSError) as error:
        notes.append(f"{_short(path)} could not be read: {error}.")
        return None
    return found


def _short(path: Path) -> str:
    return "/".join(path.parts[-3:])


def scalar(value: object) -> float:
    """A number from JSON; anything else, null included, is NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def vector(value: object) -> Array:
    """A list of numbers from JSON; anything else is empty."""
    return np.array([scalar(item) for item in sequence(value)], dtype=np.float64)


def mapping(value: object) -> dict[str, Any]:
    """An object from JSON; anything else is empty."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[dict[str, Any]]:
    """The objects in a list from JSON."""
    return [mapping(item) for item in sequence(value) if isinstance(item, Mapping)]


def sequence(value: object) -> list[Any]:
    """A list from JSON; anything else is empty."""
    return value if isinstance(value, list) else []
