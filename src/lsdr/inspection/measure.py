"""Read one entry and measure it."""

from dataclasses import dataclass
from typing import Any

import torch

from lsdr.inspection.base import Base
from lsdr.inspection.compare import average_distance, delta
from lsdr.inspection.heads import head_rows
from lsdr.inspection.layer import as_matrix, broken_row, layer_row
from lsdr.inspection.plan import Task, config_of
from lsdr.inspection.statistics import Precision
from lsdr.layers.checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False)
class Measure:
    """Turns tasks into rows; called from several threads, each of which holds one layer at a time."""

    checkpoint: Checkpoint
    base: Base | None
    normalised: frozenset[str]
    """Attention layers that normalise queries and keys."""
    precision: Precision

    def __call__(self, task: Task) -> dict[str, Any] | None:
        """The row of one task; None of a vector with nothing wrong; with "failed" where the numbers defeat LAPACK."""
        with torch.no_grad():
            try:
                return self._vector(task) if task.is_vector else self._layer(task)
            except RuntimeError as error:
                if type(error).__name__ != "_LinAlgError":  # torch does not export it by name to type checkers
                    raise
                return {"name": task.name, "failed": f"no singular values ({error})"}
            except ValueError as error:
                raise ValueError(f"{task.name}: {error}") from error

    def _vector(self, task: Task) -> dict[str, Any] | None:
        for name, stored in ((task.name, task.stored), (task.average, task.average)):
            if name is None or stored is None:
                continue
            values = self.checkpoint.load(stored)
            bad = values.numel() - int(values.double().isfinite().sum())
            if bad:
                return broken_row(name, values, task.facts, bad)
        return None

    def _layer(self, task: Task) -> dict[str, Any]:
        load = self.checkpoint.load
        weight = load(task.stored)
        if task.expert is not None:
            weight = weight[task.expert]
        found: dict[str, Any] = {}
        spectrum = None
        if self.base is not None and task.base is not None:
            other = self.base.checkpoint.load(task.base)
            if task.expert is not None:
                other = other[task.expert]
            pair = as_matrix(weight, task.facts), as_matrix(other, task.facts)
            found["delta"], spectrum = delta(*pair, self.precision)
            del other, pair
        row = layer_row(task.name, weight, task.facts, self.precision, spectrum)
        if task.component:
            row["component"] = task.component
        if task.average is not None:
            found["ema"] = {"name": task.average, **average_distance(weight, load(task.average))}
        if task.facts.heads and row["sigma_max"]:
            _, config = config_of(self.checkpoint, task.stored)
            key = None if task.key is None else (task.key, load(task.key))
            rows = head_rows(task.stored, weight, task.facts, config, key)
            if rows:
                parent = task.name.rpartition(".")[0]
                found["heads"] = [{**each, "qk_norm": True} for each in rows] if parent in self.normalised else rows
        return {**row, **found}
