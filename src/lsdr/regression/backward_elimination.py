"""The whole of a backward elimination: from a table to the path, the choice, and what to make of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lsdr.regression.accumulate import accumulate, means_of
from lsdr.regression.assemble import assemble
from lsdr.regression.batch import Batch
from lsdr.regression.clusters import ClusterGrams
from lsdr.regression.columns import Column, Term, terms_of
from lsdr.regression.one_pass import one_pass
from lsdr.regression.options import Options
from lsdr.regression.plan import Plan, make_plan
from lsdr.regression.reduction import Reduction
from lsdr.regression.robust_errors import refuse_one_shot
from lsdr.regression.sources.open import open_source
from lsdr.regression.sources.source import Source
from lsdr.regression.work import one_thread


def backward_elimination(
    source: Any,
    target: str,
    *,
    features: Sequence[str] | None = None,
    categorical: Sequence[str] = (),
    forced: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    weights: str | None = None,
    weight_kind: str = "analytic",
    clusters: str | None = None,
    errors: str = "classical",
    intercept: bool = True,
    ridge: float | int = 0.0,
    keep: int | None = None,
    rule: str = "one_se",
    p_value: float | int = 0.05,
    folds: int = 5,
    fold_column: str | None = None,
    resamples: int = 0,
    split: bool = True,
    seed: int = 0,
    method: str = "auto",
    missing: str = "drop",
    engine: str = "threads",
    workers: int | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> Reduction:
    r"""Drop the term with the smallest |t|, refit, and so on to the end: the whole path from one pass over the rows.

    .. math:: t_j = \frac{b_j}{\sqrt{s^2 C_{jj}}}, \qquad \Delta\mathrm{RSS}_j = \frac{b_j^2}{C_{jj}}

    with C the inverse of the cross-products of the columns left. Held-out errors, selection frequencies and inference
    on rows apart from the selection come from the same pass, as rows are dealt to blocks by a hash of their number.

    The result does not depend on the engine or on how many workers there are. Cost: O(n p^2) once, O(p^3) for each of
    the path, the folds and the resamples; memory O(p^2) times about 20 blocks, whatever n.

    Source: the removals are Goodnight's reverse sweeps ("A tutorial on the SWEEP operator", The American Statistician
    1979), made on a triangular root.

    Args:
        source: A pair (X, y) of arrays; a pandas, polars or Arrow table; a polars LazyFrame; a path or pattern of
            Parquet, Arrow or CSV files; or an iterator of batches, or a function that returns one.
        target: Name of the column to explain ("y" for a pair of arrays).
        features: Names of the columns that may explain it, highest priority first; None: all others.
        categorical: Features whose numbers are labels (text is a factor by itself).
        forced: Terms that are never removed.
        groups: Features that are dropped together as one term: its name and their names.
        weights: Name of the column of weights.
        weight_kind: "analytic": the precision of a row; "frequency": how many rows it stands for.
        clusters: Name of the column of cluster labels. Clusters are never split between folds or halves.
        errors: "classical"; "HC0" to "HC3"; "cluster", which is what "classical" becomes where there are clusters.
        intercept: Whether the models have one.
        ridge: Penalty on the squared coefficients, in their own units (scikit-learn's Ridge alpha).
        keep: Number of terms to keep; None: the rule decides.
        rule: "one_se", "cv", "aic", "bic", "cp", "p_value" or "size"; see `lsdr.regression.rules.choose`.
        p_value: Threshold of the rule "p_value".
        folds: Number of folds of the held-out errors; 0: none.
        fold_column: Name of the column that says which fold a row is in.
        resamples: Number of half-samples for the selection frequencies; 0: none.
        split: Whether to select on half of the rows as well, and judge that choice by the other half.
        seed: Deals rows to blocks, and blocks to half-samples.
        method: "auto", "gram" (cross-products) or "qr".
        missing: "drop" leaves out rows with a missing value in any column used; "raise" refuses them.
        engine: "threads", "processes" (in a script under ``if __name__ == "__main__":``) or "ray".
        workers: How many; None: one a core.
        progress: Called with the rows read so far and their number where it is known.

    Raises:
        ValueError: If an option or a column is not as it should be, or no row is left.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 3))
        >>> y = 2 * X[:, 0] - X[:, 2] + rng.normal(size=200)
        >>> result = backward_elimination((X, y), "y")
        >>> [step.removed for step in result.steps], result.chosen.features
        (['x1', 'x2', 'x0', None], ('x0', 'x2'))
    """
    grouped = {name: tuple(members) for name, members in (groups or {}).items()}
    options = Options(
        errors="cluster" if clusters is not None and errors == "classical" else errors,
        ridge=float(ridge),
        keep=keep,
        rule=rule if keep is None else "size",
        p_value=float(p_value),
        folds=folds,
        resamples=resamples,
        split=split,
        seed=seed,
        method=method,
    )
    options.check(rule, clusters)
    opened = open_source(source)
    plan = make_plan(
        opened,
        target,
        features=features,
        categorical=categorical,
        forced=[column for name in forced for column in grouped.get(name, (name,))],
        weights=weights,
        weight_kind=weight_kind,
        clusters=clusters,
        fold_column=fold_column,
        folds=folds or 5,
        seed=seed,
        missing=missing,
    )
    if not (folds or fold_column or split or resamples):
        plan = replace(plan, blocks=1, folds=1)  # no rows have to be told from others
    order = _order(plan, grouped)
    options.check_keep(order, forced)
    first = opened.peek(plan)
    if first is None:
        raise ValueError(opened.empty(plan))
    if options.errors.startswith("HC"):
        refuse_one_shot(options.errors, opened.repeatable)
    read = partial(_read, opened, plan, engine, workers, progress)
    # Not for the pass alone: on a machine with other work, threads waiting for each other make hundreds of small
    # products take twenty times as long.
    with one_thread():
        done = accumulate(
            read,
            first,
            lambda columns: _terms(columns, plan, grouped, forced, intercept, order),
            blocks=plan.blocks,
            method=method,
            intercept=intercept,
            frequency=plan.frequency,
            ridge=options.ridge,
            rows=opened.rows,
            repeatable=opened.repeatable,
            beside=_cluster_grams(first) if options.errors == "cluster" else None,
        )
        return assemble(done, plan, options, order, read, opened.repeatable)


def _read(
    source: Source,
    plan: Plan,
    engine: str,
    workers: int | None,
    progress: Callable[[int, int | None], object] | None,
    empty: Callable[[], Any],
) -> Any:
    return one_pass(source, plan, empty, engine=engine, workers=workers, progress=progress)


def _cluster_grams(first: Batch) -> Callable[[], ClusterGrams]:
    means = means_of(first)
    return partial(ClusterGrams, first.columns, means[:-1], float(means[-1]))


def _order(plan: Plan, groups: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Names of the terms: a group stands where its first member does."""
    group_of: dict[str, str] = {}
    for name, members in groups.items():
        if not members:
            raise ValueError(f"the group {name!r} has no members")
        for member in members:
            if member not in plan.features:
                raise ValueError(f"the group {name!r} has {member!r}, which is not among the features")
            if member in group_of:
                raise ValueError(f"{member!r} is in two groups, {group_of[member]!r} and {name!r}: give it to one")
            group_of[member] = name
        if name in plan.features and group_of.get(name) != name:
            raise ValueError(f"a group is called {name!r}, as a feature outside it is: call it something else")
    return tuple(dict.fromkeys(group_of.get(name, name) for name in plan.features))


def _terms(
    columns: tuple[Column, ...],
    plan: Plan,
    groups: Mapping[str, tuple[str, ...]],
    forced: Sequence[str],
    intercept: bool,
    order: tuple[str, ...],
) -> tuple[Term, ...]:
    """The terms of the features, those of a group put together."""
    single = terms_of(columns, plan.features, plan.forced, factors=plan.categorical, intercept=intercept)
    by_name = {term.name: term for term in single}
    found = []
    for name in order:
        members = [by_name[member] for member in groups.get(name, (name,))]
        found.append(Term(name, tuple(column for term in members for column in term.columns), name in forced))
    return tuple(found)
