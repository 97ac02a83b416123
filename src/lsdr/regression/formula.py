"""Formulas ("price ~ area + C(region)*rooms"): what they make of a table, and reductions of it term by term."""

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from threading import Lock
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
import pyarrow as pa
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning, FormulaicError
from numpy.typing import NDArray

from lsdr.regression.design import picked
from lsdr.regression.sources.frames import table_of
from lsdr.regression.sources.tables import MOST_LEVELS

# Filters of warnings are global, and parts of a source are read in several threads.
_FILTERS = Lock()


@dataclass(frozen=True, eq=False)
class FormulaDesign:
    """A formula with everything that it learned from the data: levels, means of scale(), bases of poly().

    Attributes:
        formula: As given.
        left: formulaic's specification of the target.
        right: And of the columns.
        terms: (name, its columns) in formulaic's order, the intercept left out.
        intercept: Whether the formula has one.
        left_variables: The table's columns that the target uses.
        right_variables: And those that the terms use.
    """

    formula: str
    left: ModelSpec
    right: ModelSpec
    terms: tuple[tuple[str, tuple[str, ...]], ...]
    intercept: bool
    left_variables: tuple[str, ...]
    right_variables: tuple[str, ...]

    @property
    def target(self) -> str:
        """Name of what is explained: "price", "np.log(price)"."""
        return str(self.left.column_names[0])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, the intercept left out."""
        return tuple(column for _, columns in self.terms for column in columns)

    def __call__(self, table: Any) -> dict[str, NDArray[np.float64]]:
        """The columns for new rows; nan in rows where a variable is missing.

        Raises:
            ValueError: If a variable is missing from the table, or a factor has a level that was not there.
        """
        frame = to_frame(table, self.right_variables)
        return dict(zip(self.columns, self.matrix(frame).T, strict=True))

    def matrix(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(n, columns) for the rows of a frame, without the intercept."""
        made = _materialize(self.right, frame[list(self.right_variables)], self.formula)
        return made[:, 1:] if self.intercept else made

    def response(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(n,) the target for the rows of a frame."""
        return np.ascontiguousarray(_materialize(self.left, frame[list(self.left_variables)], self.formula)[:, 0])


def parse_formula(formula: str, columns: Sequence[str], reserved: Collection[str] = ()) -> Formula:
    """A formula with one target and one set of terms.

    Args:
        formula: As R, patsy and formulaic have it; "." stands for all columns but the target and the reserved ones.
        columns: What the table has.
        reserved: Columns with another role (weights, clusters, folds).

    Raises:
        ValueError: If it cannot be read, lacks a target, or uses a column that is not there.
    """
    available = [name for name in columns if name not in reserved]
    try:
        parsed = Formula(formula, _context={"__formulaic_variables_available__": available})
    except FormulaicError as error:
        raise ValueError(f"The formula {formula!r} cannot be read: {_plain(error)}") from error
    if not hasattr(parsed, "lhs") or len(parsed.lhs) != 1:
        raise ValueError(f"A formula needs one target before the tilde, like 'price ~ area + region'; got {formula!r}.")
    if isinstance(parsed.rhs, tuple):
        raise ValueError(f"Terms of several parts (|) have no meaning here; got {formula!r}.")
    for name in sorted({*variables_of(parsed.lhs, columns), *variables_of(parsed.rhs, columns)}):
        if name not in columns:
            near = get_close_matches(name, list(columns), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, list(columns)[:20]))}."
            raise ValueError(f"The formula {formula!r} uses {name!r}, which is no column of the data; {hint}")
    return parsed


def variables_of(side: SimpleFormula, columns: Collection[str]) -> tuple[str, ...]:
    """The names that one side of a formula uses, sorted; functions and modules left out.

    formulaic's own list lacks those inside scale(), center() and poly() until data are there, so we look ourselves.
    """
    names = set(map(str, side.required_variables))
    for factor in {factor for term in side for factor in term.factors}:
        quoted = re.findall(r"`([^`]*)`", factor.expr)
        try:
            nodes = list(ast.walk(ast.parse(re.sub(r"`[^`]*`", "_", factor.expr), mode="eval")))
        except SyntaxError:
            nodes = []  # formulaic reports it, with the place
        used = [*quoted, *(node.id for node in nodes if isinstance(node, ast.Name))]
        names |= {name for name in used if name in columns} | ({factor.expr} & set(columns))
    return tuple(sorted(names))


def learn_design(formula: str, parsed: Formula, frame: pd.DataFrame) -> FormulaDesign:
    """What a formula makes of a table; its levels, means and bases are those of this table's complete rows.

    Raises:
        ValueError: If no row is complete, or the target is not one number a row.
    """
    complete = frame[~missing_rows(frame)].infer_objects()
    if complete.empty:
        raise ValueError(f"No row has values for all of {', '.join(map(repr, frame.columns))}: nothing to fit.")
    try:
        with np.errstate(all="ignore"):
            made = parsed.get_model_matrix(complete, context={}, na_action="ignore")
    except FormulaicError as error:
        raise ValueError(f"The formula {formula!r} cannot be evaluated: {_plain(error)}") from error
    left, right = made.lhs.model_spec, made.rhs.model_spec
    if len(left.column_names) != 1:
        raise ValueError(
            f"The target of {formula!r} must be one number a row, but makes {len(left.column_names)} columns "
            f"({', '.join(map(str, left.column_names[:5]))}): is it text?"
        )
    names = list(right.column_names)
    _few_levels(formula, right)
    terms = []
    for term, place in right.term_slices.items():
        if str(term) != "1" and place.stop > place.start:
            terms.append((str(term), tuple(map(str, names[place]))))
    intercept = bool(names) and names[0] == "Intercept"
    variables = (variables_of(parsed.lhs, frame.columns), variables_of(parsed.rhs, frame.columns))
    return FormulaDesign(formula, left, right, tuple(terms), intercept, *variables)


def _few_levels(formula: str, spec: ModelSpec) -> None:
    for factor, (_, state) in spec.encoder_state.items():
        levels = len(state.get("categories", ()))
        if levels > MOST_LEVELS:
            raise ValueError(
                f"{factor} in {formula!r} has {levels} levels, so it looks like an identifier: leave it out, or merge "
                f"its values into {MOST_LEVELS} or fewer."
            )


def missing_rows(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows lack a value."""
    return np.asarray(frame.isna().any(axis=1).to_numpy(), dtype=bool)


def to_frame(table: Any, variables: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table for formulaic: NumPy numbers, and labels as they are.

    Raises:
        ValueError: If a column is not there.
        TypeError: If it is no table.
    """
    arrow = table_of(picked(table, variables), "the table")
    for position, field in enumerate(arrow.schema):
        if pa.types.is_decimal(field.type):
            arrow = arrow.set_column(position, field.name, arrow.column(position).cast(pa.float64()))
    # Whole numbers stay whole beside nulls, so that levels keep their names: C(rooms)[T.2], not [T.2.0].
    frame = arrow.to_pandas(integer_object_nulls=True)
    return frame[list(variables)]


def _materialize(spec: ModelSpec, frame: pd.DataFrame, formula: str) -> NDArray[np.float64]:
    """The columns of a specification; formulaic would take a missing label for the reference level: nan instead."""
    missing = missing_rows(frame)
    made = np.full((len(frame), len(spec.column_names)), np.nan)
    if missing.all():
        return made
    with _FILTERS, catch_warnings(), np.errstate(all="ignore"):
        simplefilter("error", DataMismatchWarning)
        try:
            made[~missing] = spec.get_model_matrix(
                frame[~missing].infer_objects(), context={}, na_action="ignore"
            ).to_numpy(dtype=float)
        except DataMismatchWarning as warning:
            found = re.search(r"\{.*\}", str(warning))
            levels = found.group() if found else _plain(warning)
            raise ValueError(f"A factor of {formula!r} has levels that the fit had not seen: {levels}.") from None
        except FormulaicError as error:
            raise ValueError(f"The formula {formula!r} cannot be evaluated: {_plain(error)}") from error
    return made


def _plain(error: Exception) -> str:
    """An error's message in one line, without the colours that formulaic gives a terminal."""
    text = "".join(character for character in str(error) if character.isprintable() or character == "\n")
    for code in ("[1;31m", "[0m", "⧛", "⧚"):
        text = text.replace(code, "")
    return " ".join(text.split())
