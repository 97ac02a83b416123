"""Adapters (LoRA, LoHa, LoKr): each target's change, alone and against the weight that it is added to."""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from lsdr.inspection import statistics
from lsdr.inspection.compare import delta
from lsdr.inspection.statistics import Precision
from lsdr.layers.checkpoint.adapters import Adapter
from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.checkpoint.match_base import match_base
from lsdr.linalg.combine import Sum
from lsdr.linalg.dense import Dense
from lsdr.linalg.exact import exact_singular_values
from lsdr.linalg.frobenius import frobenius
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.lanczos import lanczos
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import Adjoint, LinearOperator
from lsdr.spectrum import Spectrum

_OPERATORS = {"lora": "low_rank", "loha": "hadamard", "lokr": "kronecker", "full": "reshape"}
_FEW = 1 << 24  # entries of a change that is written out where its structure gives no shorter way


@dataclass(frozen=True, eq=False)
class MeasureAdapter:
    """Turns (target, adapter) into a row; called from several threads.

    Args:
        checkpoint: The adapters' file, for the type they are stored in.
        base: The base checkpoint, if there is one.
        matched: Target to the stored names of the base's entries that make up its weight.
        precision: Of Gram matrices.
    """

    checkpoint: Checkpoint
    base: Checkpoint | None
    matched: dict[str, tuple[str, ...]]
    precision: Precision

    def __call__(self, item: tuple[str, Adapter]) -> dict[str, Any]:
        """Measure one target."""
        target, adapter = item
        operator = Adjoint(adapter.operator) if adapter.transposed else adapter.operator
        entries = [self.checkpoint.entries[name] for name in adapter.tensors]
        row: dict[str, Any] = {
            "name": target,
            "shape": list(operator.shape),
            "dtype": str(entries[0].dtype).removeprefix("torch."),
            "kind": adapter.kind,
            "operator": _OPERATORS[adapter.kind],
            "parameters": sum(torch.Size(entry.shape).numel() for entry in entries),
            "unknown": ["base"] if target not in self.matched else [],
        }
        bad = sum(_nonfinite(self.checkpoint.load(name)) for name in adapter.tensors)
        if bad:
            return {**row, **statistics.NOTHING, "nonfinite": bad, "adapter": None}
        spectrum = _spectrum(operator)
        size = frobenius(operator)
        about: dict[str, Any] = {
            "kind": adapter.kind,
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "scale": adapter.scale,
            "key_norm": size,
            "dora": adapter.dora,
        }
        found: dict[str, Any] = {}
        if self.base is not None and target in self.matched:
            parts = [self.base.load(name) for name in self.matched[target]]
            stored = parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts])
            found = self._against(stored, operator, spectrum, about)
        whole = len(spectrum.values) > 1 or min(operator.shape) == 1
        used = Spectrum.of(spectrum.values[: adapter.rank or None])
        return {
            **row,
            **statistics.bounds(spectrum),
            **(statistics.ranks(spectrum) if whole else {"stable_rank": None, "effective_rank": None}),
            "power_law_exponent": statistics.tail(used),
            "sigma_over_target": float(spectrum.values[0]) * (operator.shape[1] / operator.shape[0]) ** 0.5,
            "condition_number": None,
            "condition_number_note": "a change of low rank has none",
            "marchenko_pastur_outliers": None,
            "dead_directions": None,
            "duplicated_directions": None,
            "frobenius": size,
            "nonfinite": 0,
            "matrix": list(operator.shape),
            "spectrum": statistics.quantiles(used),
            "adapter": about,
            **found,
        }

    def _against(
        self, stored: Tensor, operator: LinearOperator, spectrum: Spectrum, about: dict[str, Any]
    ) -> dict[str, Any]:
        """What the change is to its base; fills in `about`."""
        base = stored.flatten(1)
        if tuple(base.shape) != operator.shape:
            about["base_note"] = f"the base's weight is {list(stored.shape)}: of another shape than the change"
            return {}
        if not bool(base.float().isfinite().all()):
            about["base_note"] = "the base's weights are not finite"
            return {}
        generator = torch.Generator().manual_seed(0)
        of_base = lanczos(Dense(base), generator=generator)
        together = lanczos(Sum(Dense(base), operator), generator=generator)
        size = float(of_base.values[0])
        about |= {
            "base_sigma_max": size,
            "sigma_over_base": float(spectrum.values[0]) / size if size > 0 else None,
            "sum_sigma_max": float(together.values[0]),
            "sum_lower": None if together.lower is None else float(together.lower[0]),
            "sum_upper": None if together.upper is None else float(together.upper[0]),
        }
        if about["dora"]:  # base and change are normalised together: their sum is not the new weight
            return {}
        changed, _ = delta(base.float() + operator.matrix().float(), base, self.precision)
        return {"delta": changed}


def choose(
    adapters: dict[str, Adapter], base: Checkpoint | None, layers: str
) -> tuple[list[tuple[str, Adapter]], dict[str, tuple[str, ...]], list[str]]:
    """The adapters to measure, the base's entries that they are for, and what to say of those without one."""
    chosen = [(target, adapter) for target, adapter in adapters.items() if fnmatchcase(target, layers)]
    matched = match_base([target for target, _ in chosen], base.entries) if base is not None else {}
    lost = [target for target, _ in chosen if base is not None and target not in matched]
    if lost and not matched:
        raise ValueError(
            f"none of the {len(chosen)} adapters is for a weight of the base ({lost[0]}, ...): they are for another "
            "model, or its names are those of another library"
        )
    notes = []
    if lost:
        listed = ", ".join(lost[:3]) + ", ..." * (len(lost) > 3)
        notes.append(f"{len(lost)} of {len(chosen)} adapters are for no weight of the base ({listed})")
    dora = sum(adapter.dora for _, adapter in chosen)
    if dora:
        notes.append(f"{dora} adapters hold magnitudes too (DoRA): their change is not the whole difference")
    return chosen, matched, notes


def _spectrum(operator: LinearOperator) -> Spectrum:
    """All singular values where they are affordable, else the largest."""
    inner = operator.of if isinstance(operator, Adjoint) else operator
    if isinstance(inner, LowRank | Kronecker) or math.prod(operator.shape) <= _FEW:
        return exact_singular_values(operator)
    return lanczos(operator, generator=torch.Generator().manual_seed(0))


def _nonfinite(values: Tensor) -> int:
    return values.numel() - int(values.double().isfinite().sum())
