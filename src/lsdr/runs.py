"""The run directory: JSON written atomically, records appended, the environment stamped.

A run is a folder of plain files; whoever reads one (a report, a comparison, a person) needs no torch.
"""

import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "lsdr", "torch", "diffusers", "accelerate", "numpy", "scipy", "scikit-learn", "polars", "pandas", "torchmetrics",
    "ray",
)  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON so that a reader sees the old file or the new one, never a part.

    Non-finite floats become null, because JSON has no word for them.

    Args:
        path: Where to write; missing folders are made.
        value: What to write: dicts, lists, strings, numbers, paths.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a" / "b.json"
        >>> write_json(file, {"loss": float("nan")})
        >>> read_json(file)
        {'loss': None}
    """
    write_text(path, json.dumps(_plain(value), indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: If the file is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}); delete it or restore it from a copy") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically and durably (see `write_json`)."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        # mkstemp makes private files; a run directory is for sharing.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Force a file's or folder's content to disk, so that a power cut after a rename leaves no empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def record_status(directory: Path, status: str, message: str) -> None:
    """Say in a run's status.json what became of it, keeping the rest.

    Args:
        directory: The run's folder.
        status: "running", "finished", "diverged", "crashed", "interrupted", "out_of_memory" or "disk_full".
        message: Why, in words; empty where there is nothing to say.
    """
    path = directory / "status.json"
    before = read_json(path) if path.exists() else {}
    write_json(path, {**before, "status": status, "message": message})


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON object as a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_plain(record)) + "\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; a missing file is empty and a last line cut off by a kill is left out.

    Raises:
        ValueError: If a line before the last is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline behind it: the writer was killed
                break
            raise ValueError(f"{path}, line {number}, is not JSON ({error}); remove that line") from error
    return records


def keep_records(path: Path, last_step: int) -> None:
    """Drop the records after `last_step`: what a resumed run will write again."""
    records = [record for record in read_records(path) if record["step"] <= last_step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def environment() -> dict[str, Any]:
    """What this runs on: Python, platform, processor count and the versions of the packages that matter."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "command": " ".join(sys.argv),
        "packages": versions,
    }


def _plain(value: Any) -> Any:
    """Turn a value into what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return _plain(value.tolist())
    return value
