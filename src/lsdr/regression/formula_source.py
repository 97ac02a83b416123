"""A formula over a source that is not in memory: levels are looked up first, then rows expanded as they are read."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from formulaic import Formula
from numpy.typing import NDArray

from lsdr.regression.formula import FormulaDesign, learn_design, missing_rows, variables_of
from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import Encoded, Factor, Place
from lsdr.regression.sources.source import Part, Read, Source
from lsdr.regression.sources.tables import check_levels

# Rows from which a formula is learned where levels are all that there is to learn.
_FIRST_ROWS = 1000


def learn_streamed(formula: str, parsed: Formula, source: Source) -> FormulaDesign:
    """What a formula makes of a source, without holding it.

    Only what can be computed row by row is possible: levels of factors are looked up in a pass of their own.

    Raises:
        ValueError: If a term needs all rows at once (scale, center, poly, splines, means, lags), or levels have to be
            looked up in a source that can be read only once.
    """
    plan = _raw_plan(formula, parsed, source)
    for part in source.split(plan, True):
        for rows, _ in part.read(plan, part.place):
            frame = _frame(rows, plan)
            complete = frame[~missing_rows(frame)].head(_FIRST_ROWS)
            if len(complete):
                return _with_levels(formula, parsed, source, plan.target, complete)
    raise ValueError(f"{source.description} has no row with values for all of {', '.join(map(repr, plan.columns))}.")


def formula_source(design: FormulaDesign, parsed: Formula, source: Source) -> Source:
    """The columns of a formula as a source; weights, clusters and folds keep their names."""
    raw = _raw_plan(design.formula, parsed, source)
    schema = dict(source.schema) | dict.fromkeys((*design.columns, design.target), "number")

    def split(plan: Plan, looking: bool) -> Iterator[Part]:
        if not plan.features:
            # The values of a column of the source are asked for (`Source.distinct`).
            yield from source.split(plan, looking)
            return
        inner = replace(plan, target=raw.target, features=raw.features, categorical=raw.categorical)
        for part in source.split(inner, looking):
            yield Part(part.index, part.rows, plan, part.place, _Expand(design, inner, part.read))

    return Source(source.description, source.rows, source.repeatable, schema, split)


@dataclass(frozen=True, eq=False)
class _Expand:
    """Reads the variables and hands on the columns."""

    design: FormulaDesign
    raw: Plan
    read: Read

    def __call__(self, plan: Plan, place: Place) -> Iterator[tuple[Encoded, Place]]:
        names = self.design.columns
        chosen = None if plan.features == names else [names.index(name) for name in plan.features]
        for rows, at in self.read(self.raw, place):
            frame = _frame(rows, self.raw)
            matrix = self.design.matrix(frame)
            matrix = np.ascontiguousarray(matrix if chosen is None else matrix[:, chosen])
            yield replace(rows, features=matrix, target=self.design.response(frame)), at


def _raw_plan(formula: str, parsed: Formula, source: Source) -> Plan:
    left, right = (variables_of(side, source.schema) for side in (parsed.lhs, parsed.rhs))
    if not left:
        raise ValueError(f"The target of {formula!r} uses no column of {source.description}.")
    for name in {*left, *right}:
        if source.schema[name] not in ("number", "boolean", "text"):
            raise ValueError(
                f"column {name!r} of {source.description} holds {source.schema[name]} values, which formulas over "
                "sources that are not in memory cannot use: make numbers or text of it first."
            )
    variables = [name for name in dict.fromkeys([*left, *right]) if name != left[0]]
    text = tuple(name for name in variables if source.schema[name] == "text")
    return Plan(target=left[0], features=tuple(variables), categorical=text)


def _frame(rows: Encoded, plan: Plan) -> pd.DataFrame:
    """The variables of a stretch, labels as text."""
    columns: dict[str, NDArray[np.generic]] = {}
    if plan.target:
        columns[plan.target] = rows.target
    for position, name in enumerate(plan.features):
        column = rows.features[position] if isinstance(rows.features, tuple) else rows.features[:, position]
        if isinstance(column, Factor):
            column = np.array([*column.levels, None], dtype=object)[column.codes]
        columns[name] = column
    return pd.DataFrame(columns)


def _with_levels(formula: str, parsed: Formula, source: Source, target: str, first: pd.DataFrame) -> FormulaDesign:
    design = learn_design(formula, parsed, first)
    _row_by_row(design, first)
    spec = design.right
    variables = {
        tuple(sorted(set(map(str, spec.factor_variables[factor])) & set(first.columns)))
        for factor in spec.factors
        if "categories" in spec.encoder_state.get(str(factor), (None, {}))[1]
    }
    if not variables:
        return design
    if not source.repeatable:
        raise ValueError(
            f"The levels of {', '.join('/'.join(names) for names in sorted(variables))} must be known before rows can "
            f"be expanded, and {source.description} can be read only once: give a function that returns a new iterator."
        )
    rows = pd.concat([first, _every_level(source, target, first, variables)], ignore_index=True)
    for name in {name for names in variables for name in names}:
        # Numbers are read as float64; whole ones keep the names that they have elsewhere: C(rooms)[T.2], not [T.2.0].
        if rows[name].dtype.kind == "f" and (rows[name] % 1 == 0).all():
            rows[name] = rows[name].astype(np.int64)
    return learn_design(formula, parsed, rows)


def _row_by_row(design: FormulaDesign, first: pd.DataFrame) -> None:
    """Refuse what is not a function of one row: it keeps a state, or parts of the rows give other values."""
    stateful = list(dict.fromkeys([*design.left.transform_state, *design.right.transform_state]))
    if not stateful:
        middle = len(first) // 2
        pieces = [piece for piece in (first[:middle], first[middle:]) if len(piece)]
        for whole, apart in (
            (design.response(first), np.concatenate([design.response(piece) for piece in pieces])),
            (design.matrix(first), np.concatenate([design.matrix(piece) for piece in pieces])),
        ):
            if not np.allclose(whole, apart, rtol=1e-12, atol=0, equal_nan=True):
                stateful = [design.formula]
    if stateful:
        raise ValueError(
            f"{', '.join(map(repr, stateful))}: this needs all rows at once (mean, range or order), and the source "
            "is read in one pass: compute it beforehand, or give the table in memory (a pandas, polars or Arrow table)."
        )


def _every_level(source: Source, target: str, first: pd.DataFrame, factors: set[tuple[str, ...]]) -> pd.DataFrame:
    """Rows in which every combination of the variables of every factor occurs; other variables as in a first row."""
    names = tuple(sorted({name for variables in factors for name in variables}))
    text = tuple(name for name in names if source.schema[name] == "text")
    plan = Plan(target=target, features=tuple(name for name in names if name != target), categorical=text)
    found = {variables: pd.DataFrame(columns=list(variables)) for variables in factors}
    for part in source.split(plan, False):
        for rows, _ in part.read(plan, part.place):
            frame = _frame(rows, plan)
            for variables, have in found.items():
                new = frame[list(variables)].dropna().drop_duplicates()
                found[variables] = pd.concat([have, new], ignore_index=True) if len(have) else new
                found[variables] = found[variables].drop_duplicates()
                check_levels("/".join(variables), len(found[variables]))
    pieces = []
    for variables, have in found.items():
        rest = first.drop(columns=list(variables)).head(1)
        pieces.append(have.reset_index(drop=True).merge(rest, how="cross"))
    return pd.concat(pieces, ignore_index=True)[list(first.columns)]
