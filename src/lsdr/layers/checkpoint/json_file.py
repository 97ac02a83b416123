"""JSON that somebody else wrote: bounded, and every way to be wrong is a sentence."""

import json
from pathlib import Path
from typing import Any, NoReturn

LARGEST = 100_000_000
# A value of a parsed tree costs up to a hundred bytes: this bounds the tree by the memory of one large layer.
_MOST_VALUES = 5_000_000


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        raw: The text, UTF-8.
        what: What it is, for messages: "the header of model.safetensors".

    Raises:
        ValueError: If it is no JSON object, is larger than 100 MB or of more than 5 million values, names a key twice
            or is nested too deeply.
    """
    if len(raw) > LARGEST:
        raise ValueError(
            f"{what} is {len(raw):,} bytes of JSON; up to {LARGEST:,} are read, and no checkpoint needs more"
        )
    values = raw.count(b",") + raw.count(b"{") + raw.count(b"[")
    if values > _MOST_VALUES:
        raise ValueError(f"{what} holds {values:,} JSON values; up to {_MOST_VALUES:,} are read")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is not UTF-8 text ({error}); the file is damaged, get it again") from error
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply to be of a checkpoint") from error
    except ValueError as error:
        raise ValueError(f"{what} is not readable JSON ({error}); the file is damaged, get it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON {type(value).__name__}; expected an object")
    return value


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a file that is a JSON object; see `parse_json`."""
    size = file.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{file} is {size:,} bytes; up to {LARGEST:,} bytes of JSON are read")
    return parse_json(file.read_bytes(), str(file))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
