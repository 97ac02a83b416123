"""One layer's row: its spectrum and what follows from it."""

import math
from typing import Any

from torch import Tensor

from lsdr.inspection import statistics
from lsdr.inspection.duplicates import duplicated_rows
from lsdr.inspection.entries import dead, read_entries
from lsdr.inspection.statistics import Precision
from lsdr.layers.layout import LayerFacts
from lsdr.linalg.convolution import convolution_bracket
from lsdr.linalg.singular_values import singular_values
from lsdr.spectrum import Spectrum

_LARGEST = 1e38  # above it the singular values of float32 weights are no float32 numbers
_WITHOUT_TARGET = ("embedding", "table", "parameter")  # not multiplied with dense inputs, or nobody knows


def as_matrix(weight: Tensor, facts: LayerFacts) -> Tensor:
    """The weight with outputs as rows, what follows flattened; a view where the storage allows."""
    if facts.kind in ("table", "parameter"):  # rows are what is learned: positions, tokens
        return weight.flatten(0, -2)
    return weight.mT if facts.transposed else weight.flatten(1)


def layer_row(
    name: str, weight: Tensor, facts: LayerFacts, precision: Precision = "float32", spectrum: Spectrum | None = None
) -> dict[str, Any]:
    """All that is said of one layer.

    Args:
        name: Plain name.
        weight: As stored, two dimensions or more.
        facts: What name, shape and configuration tell about it.
        precision: Of the Gram matrix; "float64" resolves small singular values.
        spectrum: The singular values, where the caller has them already.

    Returns:
        The layer's object in the JSON of an inspection; of weights that are not finite only what can be said.
    """
    matrix = as_matrix(weight, facts)
    entries = read_entries(matrix)
    if entries.nonfinite:
        return broken_row(name, weight, facts, entries.nonfinite)
    row = _head(name, weight, facts)
    if entries.frobenius > _LARGEST:
        matrix, spectrum = matrix.double(), None
    spectrum = spectrum or singular_values(matrix, precision)
    rows, columns = matrix.shape
    row |= statistics.bounds(spectrum)
    if facts.operator_kind == "reshape":
        bracket = convolution_bracket(weight, None, 1, None, _largest(spectrum))
        row["convolution_lower"] = float(bracket.values[0] if bracket.lower is None else bracket.lower[0])
        row["convolution_upper"] = float(bracket.values[0] if bracket.upper is None else bracket.upper[0])
    repeated = duplicated_rows(matrix, entries.rows)
    dead_rows, dead_columns = dead(entries.rows), dead(entries.columns)
    return {
        **row,
        **statistics.ranks(spectrum),
        "power_law_exponent": statistics.tail(spectrum),
        "sigma_over_target": None if facts.kind in _WITHOUT_TARGET else row["sigma_max"] / math.sqrt(rows / columns),
        **statistics.condition(spectrum, weight.dtype),
        "marchenko_pastur_outliers": statistics.outliers(spectrum, rows, columns),
        "dead_directions": dead_rows + dead_columns,
        "dead_rows": dead_rows,
        "dead_columns": dead_columns,
        "duplicated_directions": None if repeated is None else len(repeated),
        "duplicated_examples": [list(pair) for pair in (repeated or [])[:3]],
        "frobenius": entries.frobenius,
        "nonfinite": 0,
        "matrix": [rows, columns],
        "spectrum": statistics.quantiles(spectrum),
    }


def broken_row(name: str, weight: Tensor, facts: LayerFacts, nonfinite: int) -> dict[str, Any]:
    """The row of an entry that is not finite: of a vector, whose numbers alone are checked, "operator" is None."""
    return {**_head(name, weight, facts), **statistics.NOTHING, "nonfinite": nonfinite}


def _head(name: str, weight: Tensor, facts: LayerFacts) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(weight.shape),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "kind": facts.kind,
        "operator": None if facts.matrix_shape is None else "reshape",
        "parameters": weight.numel(),
        "unknown": list(facts.unknown),
    }


def _largest(spectrum: Spectrum) -> Spectrum:
    """The largest value alone, with its bounds."""
    first = {
        name: None if values is None else values[:1]
        for name, values in (("lower", spectrum.lower), ("upper", spectrum.upper), ("residual", spectrum.residual))
    }
    return Spectrum(spectrum.values[:1], "singular_values", spectrum.method, **first)
