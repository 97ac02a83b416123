"""Cells of tables redrawn from their columns, disturbed, or missing."""

from functools import partial

import torch
from torch import Tensor

from lsdr.representation.inputs import Inputs
from lsdr.representation.views.step import Draws, Step, amount, spare_one, uniform


def change_cells(name: str, strength: float, reference: Inputs, exact: bool = False) -> Step:
    """The step for a transformation of a table's cells.

    Args:
        name: "marginal", "noise" or "missing".
        strength: In the units of `lsdr.representation.views.catalogue`.
        reference: Training rows: what "marginal" draws from, whole cells with what is missing of them.
        exact: Whether noise has exactly this strength instead of up to it.

    Raises:
        ValueError: If "marginal" would leave nothing of a row as it was, or "noise" has no number to disturb.
    """
    numeric, columns = reference["numeric"].shape[1], reference["missing"].shape[1]
    if name == "noise":
        if numeric == 0:
            raise ValueError("noise is for columns of numbers, and this table has none; use marginal or missing")
        return Step(partial(_draw_noise, strength, exact, numeric), _disturb)
    if name == "missing":
        return Step(partial(_draw_cells, columns), partial(_remove, strength))
    cells = max(1, round(strength * columns))
    if cells >= columns:
        raise ValueError(
            f"marginal:{strength:g} redraws {cells} of {columns} columns, and nothing of a row would be left to "
            "recognise it by; use a lower strength, or noise"
        )
    return Step(partial(_draw_marginals, cells, columns, len(reference["missing"])), _Redraw(reference))


def _draw_marginals(
    cells: int, columns: int, count_reference: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    order = uniform(count, generator, columns).argsort(dim=1, stable=True)
    chosen = torch.zeros(count, columns, dtype=torch.bool, device=generator.device)
    row = torch.randint(count_reference, (count, columns), generator=generator, device=generator.device)
    return {"chosen": chosen.scatter(1, order[:, :cells], True), "row": row}


class _Redraw:
    """Chosen cells replaced by those of drawn rows; the rows are kept on every device that asked for them."""

    def __init__(self, reference: Inputs) -> None:
        self._on = {reference["missing"].device: dict(reference)}
        self._first = dict(reference)

    def __call__(self, inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
        device = inputs["missing"].device
        if device not in self._on:
            self._on[device] = {name: value.to(device) for name, value in self._first.items()}
        numeric = inputs["numeric"].shape[1]
        parts = {"numeric": slice(numeric), "categorical": slice(numeric, None), "missing": slice(None)}
        changed = dict(inputs)
        for name, columns in parts.items():
            drawn = self._on[device][name].gather(0, draws["row"][:, columns])
            changed[name] = torch.where(draws["chosen"][:, columns], drawn.to(inputs[name].dtype), inputs[name])
        return changed


def _draw_noise(
    strength: float, exact: bool, columns: int, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    deviation = strength * amount(count, generator, exact)
    noise = torch.randn(count, columns, generator=generator, device=generator.device)
    return {"noise": deviation[:, None] * noise}


def _disturb(inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    numeric = inputs["numeric"]
    there = ~inputs["missing"][:, : numeric.shape[1]]
    return {**inputs, "numeric": numeric + draws["noise"].to(numeric.dtype) * there}


def _draw_cells(columns: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"chance": uniform(count, generator, columns)}


def _remove(rate: float, inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    numeric = inputs["numeric"].shape[1]
    gone = spare_one(draws["chance"] < rate, ~inputs["missing"], draws["chance"])
    return {
        **inputs,
        "numeric": inputs["numeric"].masked_fill(gone[:, :numeric], 0),
        "categorical": inputs["categorical"].masked_fill(gone[:, numeric:], 0),
        "missing": inputs["missing"] | gone,
    }
