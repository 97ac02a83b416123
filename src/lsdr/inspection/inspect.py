"""Look at every layer of a checkpoint."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from lsdr.inspection.adapter import MeasureAdapter, choose
from lsdr.inspection.base import Base
from lsdr.inspection.blocks import aggregate, block_of
from lsdr.inspection.calibration import rates
from lsdr.inspection.findings.comparison import RETRAINED, typical_change
from lsdr.inspection.findings.find import find
from lsdr.inspection.findings.finding import Finding
from lsdr.inspection.heads import normalised
from lsdr.inspection.measure import Measure
from lsdr.inspection.plan import plan
from lsdr.inspection.statistics import Precision
from lsdr.layers.checkpoint.adapters import Adapter, read_adapters
from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.checkpoint.names import ema_pairs, plain_names
from lsdr.layers.checkpoint.open import open_checkpoint
from lsdr.linalg.parallel import each_layer
from lsdr.runs import environment

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int, int, int], None]
"""Called with (layers done, layers in all, bytes done, bytes in all)."""


@dataclass(frozen=True)
class Inspection:
    """What was seen of a checkpoint; `to_dict` is the JSON of `lsdr inspect --json`."""

    layers: list[dict[str, Any]]
    """One row a layer, in the order of depth."""
    blocks: list[dict[str, Any]]
    """What is said of the layers' blocks as wholes."""
    findings: list[Finding]
    """What looks wrong, the worst first."""
    file: dict[str, Any]
    """Of the checkpoint as a whole."""
    skipped: list[dict[str, str]]
    """Entries that have no spectrum, and why."""
    seconds: float
    """How long it took."""

    def to_dict(self) -> dict[str, Any]:
        """The inspection as plain dicts, lists, strings and finite numbers."""
        measured = rates()
        return {
            "file": self.file,
            "layers": self.layers,
            "blocks": self.blocks,
            "findings": [finding.to_dict(measured) for finding in self.findings],
            "skipped": self.skipped,
            "environment": environment(),
            "seconds": self.seconds,
        }


def inspect(
    path: str | Path,
    *,
    base: str | Path | None = None,
    layers: str = "*",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Inspection:
    r"""Measure every layer of a checkpoint and say what looks wrong.

    Tensors are read one at a time, so that memory stays near the largest layer times the number of threads, whatever
    the size of the files. Nothing is executed and nothing is downloaded.

    Every matrix gets all its singular values from its Gram matrix on the short side, with bounds. A convolution is
    measured as its flattened kernel (operator "reshape"); the file does not say its stride, so its own norm is given
    as a bracket. Of a file of adapters (LoRA, LoHa, LoKr) each target's change is a layer, never multiplied out where
    its structure allows.

    Cost: O(m^2 n + m^3) a layer, m the short side; with a base about four times that, for singular vectors.

    Args:
        path: What `open_checkpoint` reads: a safetensors or torch file, an index of shards, a folder.
        base: The checkpoint that this one was made from, or that these adapters are for: adds "delta" to each layer.
        layers: Glob on layers' names; `*` crosses dots.
        precision: "float32" is faster; "float64" resolves condition numbers of up to about 1e6 instead of 1e2.
        progress: Called after each layer, from this thread.

    Returns:
        The inspection.

    Raises:
        ValueError: If the file cannot be read, or no layer matches.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_file({"blocks.0.fc.weight": torch.diag(torch.tensor([3.0, 2.0, 1.0]))}, file)
        >>> row = inspect(file).layers[0]
        >>> row["name"], round(row["sigma_max"], 4), round(row["stable_rank"], 4)
        ('blocks.0.fc', 3.0, 1.5556)
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_checkpoint(path))
        against = None if base is None else Base(stack.enter_context(open_checkpoint(base)), Path(base))
        adapters = read_adapters(checkpoint)
        if adapters:
            rows = _adapter_rows(checkpoint, adapters, against, layers, precision, progress)
            skipped: list[dict[str, str]] = []
        else:
            rows, skipped = _model_rows(checkpoint, against, layers, precision, progress)
        for row in rows:
            row["block"] = block_of(row["name"])
        measured = [row for row in rows if row["operator"] is not None]
        if not rows and not skipped:
            raise ValueError(_nothing(checkpoint, layers))
        return Inspection(
            layers=measured,
            blocks=aggregate(measured),
            findings=find(rows),
            file=_file(Path(path), checkpoint, against, measured),
            skipped=skipped,
            seconds=round(time.perf_counter() - started, 3),
        )


def _model_rows(
    checkpoint: Checkpoint, base: Base | None, layers: str, precision: Precision, progress: Progress | None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    averages = ema_pairs(checkpoint.entries)
    taken = set(averages.values())
    plain = {short: stored for stored, short in plain_names(checkpoint.entries).items() if stored not in taken}
    tasks, skipped = plan(checkpoint, plain, averages, layers)
    if base is not None:
        tasks = base.match(tasks, plain, checkpoint.entries)
    measure = Measure(checkpoint, base, normalised(plain), precision)
    rows = [row for row in _each(measure, tasks, [task.nbytes for task in tasks], progress) if row is not None]
    skipped += [{"name": row["name"], "reason": row["failed"]} for row in rows if "failed" in row]
    return [row for row in rows if "failed" not in row], skipped


def _adapter_rows(
    checkpoint: Checkpoint,
    adapters: dict[str, Adapter],
    base: Base | None,
    layers: str,
    precision: Precision,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    chosen, matched, notes = choose(adapters, base.checkpoint if base else None, layers)
    checkpoint.notes += notes
    measure = MeasureAdapter(checkpoint, base.checkpoint if base else None, matched, precision)
    sizes = [sum(checkpoint.entries[name].nbytes for name in adapter.tensors) for _, adapter in chosen]
    return list(_each(measure, chosen, sizes, progress))


def _each(measure: Callable[[T], R], tasks: list[T], sizes: list[int], progress: Progress | None) -> list[R]:
    """Measure every task; the results in the tasks' order."""
    # The longest first, so that no thread is left alone with the largest layer at the end.
    order = sorted(range(len(tasks)), key=lambda index: -sizes[index])
    rows: dict[int, R] = {}
    done, total = 0, sum(sizes)
    # Tensors are read inside: what is handed over is their names.
    for index, row in zip(order, each_layer(measure, [tasks[index] for index in order]), strict=True):
        rows[index] = row
        done += sizes[index]
        if progress is not None:
            progress(len(rows), len(tasks), done, total)
    return [rows[index] for index in range(len(tasks))]


def _file(path: Path, checkpoint: Checkpoint, base: Base | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    entries = checkpoint.entries.values()
    dtypes: Counter[str] = Counter()
    for entry in entries:
        dtypes[str(entry.dtype).removeprefix("torch.")] += 1
    notes = list(checkpoint.notes)
    if base is not None:
        notes += base.notes()
        change = typical_change(rows)
        if change is not None and change >= RETRAINED:
            notes.append(f"half of the layers moved by {change:.0%} of their base or more: intruders are not judged")
    found = {
        "path": str(path),
        "format": checkpoint.format,
        "files": [str(file) for file in checkpoint.files],
        "tensors": len(entries),
        "parameters": sum(torch.Size(entry.shape).numel() for entry in entries if entry.dtype.is_floating_point),
        "bytes": sum(entry.nbytes for entry in entries),
        "dtypes": dict(dtypes),
        "metadata": {key: value[:500] for key, value in list(checkpoint.metadata.items())[:50]},
        "notes": notes,
    }
    return found if base is None else {**found, "base": str(base.path)}


def _nothing(checkpoint: Checkpoint, layers: str) -> str:
    if not checkpoint.entries:
        return "the file holds no tensors"
    names = list(plain_names(checkpoint.entries).values())
    listed = ", ".join(names[:5])
    return f"no layer matches {layers!r}; there are {listed}{' ...' if len(names) > 5 else ''}"
