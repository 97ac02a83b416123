"""Backward elimination of a formula's terms."""

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import pandas as pd

from lsdr.regression.backward_elimination import backward_elimination
from lsdr.regression.formula import FormulaDesign, learn_design, parse_formula, to_frame, variables_of
from lsdr.regression.formula_source import formula_source, learn_streamed
from lsdr.regression.reduction import Reduction
from lsdr.regression.sources.arrays import open_arrays
from lsdr.regression.sources.frames import table_of
from lsdr.regression.sources.open import open_source
from lsdr.regression.sources.source import Source


def reduce_formula(
    formula: str,
    source: Any,
    *,
    weights: str | None = None,
    clusters: str | None = None,
    fold_column: str | None = None,
    forced: tuple[str, ...] | list[str] = (),
    **options: Any,
) -> Reduction:
    """The path of a formula's terms, each dropped as a whole: factors, splines and interactions by their F test.

    Columns are named as formulaic names them, which is what statsmodels' formulas show. Tables in memory may use every
    transform. Other sources are read row by row: levels of factors are looked up in a pass of their own, and transforms
    that need all rows at once (scale, center, poly, splines, means) are refused.

    A term goes when its own t or F is the weakest, whether or not an interaction that contains it is still there; name
    the main effects in `forced` to keep them.

    Args:
        formula: "price ~ area + C(rooms) + region:area"; "." stands for all other columns, "- 1" leaves the intercept
            out.
        source: As for `backward_elimination`.
        weights: Name of the column of weights.
        clusters: Name of the column of cluster labels.
        fold_column: Name of the column that says which fold a row is in.
        forced: Names of terms that are never removed.
        **options: Those of `backward_elimination`, but the ones that a formula says itself.

    Raises:
        ValueError: If the formula cannot be read, evaluated, or had from one pass.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> area, region = rng.uniform(50, 150, 300), rng.choice(["north", "south", "west"], 300)
        >>> price = 2 * area + 30 * (region == "south") + rng.normal(0, 5, 300)
        >>> table = {"price": price, "area": area, "region": region, "noise": rng.normal(size=300)}
        >>> found = reduce_formula("price ~ np.log(area) + area + region + noise", table, keep=2)
        >>> found.chosen.features
        ('area', 'region')
    """
    for name in ("target", "features", "categorical", "groups", "intercept"):
        if name in options:
            raise ValueError(f"{name} is said by the formula itself, {formula!r}: leave the option out.")
    opened = open_source(source)
    reserved = {name for name in (weights, clusters, fold_column) if name is not None}
    parsed = parse_formula(formula, list(opened.schema), reserved)
    if _in_memory(source):
        table = table_of(source, opened.description)
        variables = {*variables_of(parsed.lhs, opened.schema), *variables_of(parsed.rhs, opened.schema)}
        frame = to_frame(table, sorted(variables))
        design = learn_design(formula, parsed, frame)
        others = {name: to_frame(table, [name])[name].to_numpy() for name in reserved if name in opened.schema}
        designed = _arrays(design, frame, others, opened.description)
    else:
        design = learn_streamed(formula, parsed, opened)
        designed = formula_source(design, parsed, opened)
    names = [name for name, _ in design.terms]
    if not names:
        raise ValueError(f"The formula {formula!r} has no terms besides the intercept: nothing to reduce.")
    for name in forced:
        if name not in names:
            near = get_close_matches(name, names, n=1) or [other for other in names if name in other]
            hint = f"did you mean {near[0]!r}?" if near else f"its terms are {', '.join(map(repr, names))}."
            raise ValueError(f"forced names {name!r}, which is no term of {formula!r}; {hint}")
    found = backward_elimination(
        designed,
        design.target,
        features=design.columns,
        groups={name: columns for name, columns in design.terms if columns != (name,)},
        forced=tuple(forced),
        weights=weights,
        clusters=clusters,
        fold_column=fold_column,
        intercept=design.intercept,
        **options,
    )
    return replace(found, design=design, notes=(*found.notes, *_interactions(names)))


def _arrays(design: FormulaDesign, frame: pd.DataFrame, others: dict[str, Any], description: str) -> Source:
    columns = {name: values for name, values in others.items() if name not in design.columns}
    return open_arrays(
        design.matrix(frame),
        design.response(frame),
        names=design.columns,
        target=design.target,
        description=description,
        **columns,
    )


def _interactions(names: list[str]) -> tuple[str, ...]:
    if not any(":" in name for name in names):
        return ()
    return ("A term may go while an interaction that contains it stays; force the main effects in to keep them.",)


def _in_memory(source: Any) -> bool:
    kind = (type(source).__module__.partition(".")[0], type(source).__name__)
    return isinstance(source, dict | tuple) or kind in {
        ("pandas", "DataFrame"),
        ("polars", "DataFrame"),
        ("pyarrow", "Table"),
        ("pyarrow", "RecordBatch"),
    }
