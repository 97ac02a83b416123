"""The result of a reduction: the whole path, the model chosen, and what to be careful about."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lsdr.regression.choice import Chosen as Chosen
from lsdr.regression.choice import Dropped as Dropped
from lsdr.regression.choice import Split as Split
from lsdr.regression.columns import Term, column_name
from lsdr.regression.estimates import finite
from lsdr.regression.model import Model
from lsdr.regression.path_table import path_table
from lsdr.regression.step import Step


@dataclass(frozen=True, eq=False)
class Reduction:
    """Every step of a backward elimination, the full model first, and the size that was chosen.

    Args:
        n: Rows used (with weights above 0); the sum of frequency weights where there are such.
        missing: Rows left out because a value was missing.
        method: "gram" or "qr".
        reason: Why this route, and the digits left: a sentence.
        target: Name of what is explained.
        features: Names of all the terms, in the order of the data, those that never entered among them.
        terms: The terms of the full model with their columns; those that never entered are not there.
        steps: The path.
        chosen: Size, features and rule.
        intercept: Whether the models have one.
        aliased: Columns that never entered.
        notes: Warnings, in sentences.
        errors: Which standard errors, and whether exact: "classical", "HC3 (approximate along the path)", ...
        folds: Number of folds of the held-out errors; 0 without.
        frequencies: Share of half-samples in which a term is among the `size` last: sizes by terms; None without.
        split: Inference on rows held out from the selection; None where it was not possible.
        levels: Levels of every factor, the reference level among them.
        ridge: The penalty.
        scales: Standard deviation of every column and of the target: what standardises coefficients.
        inputs: Names of the data's columns in order; () where they are the terms.
        design: What makes a formula's columns from raw ones; None without formula.
    """

    n: float | int
    missing: int
    method: str
    reason: str
    target: str
    features: tuple[str, ...]
    terms: tuple[Term, ...]
    steps: tuple[Step, ...]
    chosen: Chosen
    intercept: bool = True
    aliased: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    errors: str = "classical"
    folds: int = 0
    frequencies: pd.DataFrame | None = None
    split: Split | None = None
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ridge: float | int = 0.0
    scales: Mapping[str, float] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    design: Callable[[Any], Any] | None = None

    def step(self, size: int | None = None) -> Step:
        """The step with so many terms; None: the chosen one.

        Raises:
            ValueError: If the path has no model of that size.
        """
        wanted = self.chosen.size if size is None else size
        for step in self.steps:
            if step.size == wanted:
                return step
        raise ValueError(
            f"The path has models of {self.steps[-1].size} to {self.steps[0].size} terms, got size={wanted!r}."
        )

    def model(self, size: int | None = None) -> Model:
        """The model with so many terms; None: the chosen one."""
        step = self.step(size)
        columns = {column_name(column): column for term in self.terms for column in term.columns}
        return Model(
            size=step.size,
            features=step.terms,
            columns=tuple(columns[name] for name in step.estimates.names[int(self.intercept) :]),
            estimates=step.estimates,
            target=self.target,
            nobs=self.n,
            df_resid=step.df_resid,
            rss=step.rss,
            rsquared=step.r_squared,
            rsquared_adj=step.adjusted_r_squared,
            errors=self.errors,
            exact=step.exact,
            selected=step.size < self.steps[0].size,
            inputs=self.inputs or self.features,
            levels=self.levels,
            design=self.design,
        )

    def frame(self) -> pd.DataFrame:
        """The path as a table: one row a step, the full model first."""
        rows = [
            {
                "size": step.size,
                "removed": step.removed,
                "t": step.t,
                "F": step.F,
                "df": step.df,
                "p_value": step.p_value,
                "rss": step.rss,
                "mse": step.mse,
                "r_squared": step.r_squared,
                "adjusted_r_squared": step.adjusted_r_squared,
                "aic": step.aic,
                "bic": step.bic,
                "cp": step.cp,
                "mse_heldout": step.mse_heldout,
                "mse_heldout_se": step.mse_heldout_se,
                "chosen": step.size == self.chosen.size,
            }
            for step in self.steps
        ]
        return pd.DataFrame(rows)

    def coefficients(self) -> pd.DataFrame:
        """Coefficients along the path: sizes by columns, nan where a column is not in the model."""
        return self._wide([step.estimates.values for step in self.steps])

    def tvalues(self) -> pd.DataFrame:
        """T values along the path: sizes by columns, nan where a column is not in the model."""
        return self._wide([step.estimates.t for step in self.steps])

    def _wide(self, rows: list[NDArray[np.float64]]) -> pd.DataFrame:
        names = self.steps[0].estimates.names
        place = {name: position for position, name in enumerate(names)}
        table = np.full((len(rows), len(names)), np.nan)
        for line, (step, values) in enumerate(zip(self.steps, rows, strict=True)):
            table[line, [place[name] for name in step.estimates.names]] = values
        return pd.DataFrame(table, index=pd.Index([step.size for step in self.steps], name="size"), columns=list(names))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain dicts, lists and numbers: what `--json` writes. Infinite and undefined: null."""
        model = self.model()
        return {
            "n": self.n,
            "missing": self.missing,
            "method": self.method,
            "reason": self.reason,
            "target": self.target,
            "features": list(self.features),
            "terms": {term.name: [column_name(column) for column in term.columns] for term in self.terms},
            "forced": [term.name for term in self.terms if term.forced],
            "intercept": self.intercept,
            "ridge": self.ridge,
            "errors": self.errors,
            "folds": self.folds,
            "scales": {name: finite(value) for name, value in self.scales.items()},
            "steps": [step.to_json() for step in self.steps],
            "chosen": {
                "size": self.chosen.size,
                "features": list(self.chosen.features),
                "rule": self.chosen.rule,
                "why": self.chosen.why,
            },
            "model": {**model.estimates.to_json(), "rsquared": finite(model.rsquared), "exact": model.exact},
            "aliased": [{"column": gone.column, "term": gone.term, "reason": gone.reason} for gone in self.aliased],
            "notes": list(self.notes),
            "frequencies": None if self.frequencies is None else _frequencies(self.frequencies),
            "split": None if self.split is None else self.split.to_json(),
        }

    def __str__(self) -> str:
        """The path as a table in plain text, long ones shortened around the chosen size."""
        return path_table(self)


def _frequencies(table: pd.DataFrame) -> dict[str, Any]:
    return {
        "sizes": [int(size) for size in table.index],
        "terms": [str(term) for term in table.columns],
        "values": table.to_numpy(dtype=float).tolist(),
    }
