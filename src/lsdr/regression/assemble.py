"""From what a pass has left to the result: path, held-out errors, choice, frequencies, split inference, notes."""

from dataclasses import replace
from typing import Any

import numpy as np

from lsdr.regression.accumulate import Accumulated, Read
from lsdr.regression.blocks import fold_of_block
from lsdr.regression.choice import Chosen, Dropped, Split
from lsdr.regression.columns import Column, column_name
from lsdr.regression.crossvalidation import heldout
from lsdr.regression.eliminate import eliminate
from lsdr.regression.notes import notes_of
from lsdr.regression.options import Options
from lsdr.regression.path_steps import path_steps
from lsdr.regression.plan import Plan
from lsdr.regression.reduction import Reduction
from lsdr.regression.robust_errors import RobustErrors, whitened
from lsdr.regression.rules import choose
from lsdr.regression.split_inference import Honest, split_inference
from lsdr.regression.stability import selection_frequencies
from lsdr.regression.step import Step
from lsdr.regression.system import System


def assemble(
    done: Accumulated, plan: Plan, options: Options, order: tuple[str, ...], read: Read, repeatable: bool
) -> Reduction:
    """The result of a pass.

    Args:
        done: What the pass has left.
        plan: What was read.
        options: What was asked for.
        order: Names of all terms.
        read: One more pass, for robust errors.
        repeatable: Whether the rows can be read again.
    """
    system, state = done.system, done.state
    robust = None
    if options.errors != "classical":
        robust = RobustErrors(
            options.errors,
            system,
            read,
            blocks=state.blocks,
            frequency=state.frequency,
            repeatable=repeatable,
            grams=done.beside,
        )
    path = eliminate(system) if robust is None else robust.path
    common: dict[str, Any] = {"ridge": options.ridge, "errors": None if robust is None else robust.of_blocks}
    numbers = np.arange(state.blocks)
    with_folds = options.folds > 0 or plan.fold_column is not None
    folds = [numbers[fold_of_block(numbers, plan.folds) == fold].tolist() for fold in range(plan.folds)]
    error = heldout(state, folds, path.terms, path.size, **common) if with_folds else None
    index, why = choose(
        path,
        options.rule,
        rows=system.rows,
        parameters=system.rows - path.df_resid,
        keep=options.keep,
        p_value=options.p_value,
        mse=None if error is None else error.mse,
        se=None if error is None else error.se,
    )
    frequencies = None
    if options.resamples:
        frequencies = selection_frequencies(
            state,
            path.terms,
            path.size,
            resamples=options.resamples,
            folds=plan.folds,
            generator=np.random.default_rng([options.seed, 1]),
            **common,
        )
    honest = None
    if options.split:
        honest = split_inference(
            state,
            path.terms,
            rule=options.rule,
            folds=folds if with_folds else (),
            keep=options.keep,
            p_value=options.p_value,
            generator=np.random.default_rng([options.seed, 2]),
            **common,
        )
    steps = path_steps(system, path, error)
    split = None if honest is None else honest.split
    if robust is not None:
        steps, split = _robust(robust, system, steps, index, honest)
    term_of = {column: term.name for term in done.terms for column in term.columns}
    return Reduction(
        n=int(system.rows),
        missing=state.missing,
        method=system.method,
        reason=done.reason,
        target=plan.target,
        features=order,
        inputs=plan.features,
        terms=path.terms,
        steps=steps,
        chosen=Chosen(steps[index].size, steps[index].terms, options.rule, why),
        intercept=system.intercept,
        aliased=tuple(Dropped(column_name(gone.column), term_of[gone.column], gone.reason) for gone in system.aliased),
        notes=(
            *done.notes,
            *notes_of(system, path, options, plan, with_folds and error is None),
            *(() if robust is None else robust.notes),
        ),
        errors=_label(options.errors, robust),
        folds=0 if error is None else len(error.folds),
        frequencies=frequencies,
        split=split,
        levels=_levels(state.columns),
        ridge=options.ridge,
        scales=_scales(system, plan.target),
    )


def _robust(
    robust: RobustErrors, system: System, steps: tuple[Step, ...], index: int, honest: Honest | None
) -> tuple[tuple[Step, ...], Split | None]:
    """Exact errors of the chosen model and of the honest half: one pass for both where one is needed."""
    split = None if honest is None else honest.split
    exact = robust.label == "exact"
    steps = tuple(replace(step, exact=exact or place == 0) for place, step in enumerate(steps))
    if robust.grams is not None:
        return steps, split
    models = [] if steps[index].exact else [whitened(system, robust.path, index)]
    if honest is not None:
        models.append(whitened(honest.system, honest.path, 0, blocks=honest.blocks))
    found = [np.sqrt(np.diag(covariance)) for covariance in robust.exact(models)] if models else []
    if split is not None:
        split = replace(split, estimates=replace(split.estimates, errors=found[-1]))
    if not steps[index].exact:
        step = replace(steps[index], exact=True, estimates=replace(steps[index].estimates, errors=found[0]))
        steps = (*steps[:index], step, *steps[index + 1 :])
    return steps, split


def _label(errors: str, robust: RobustErrors | None) -> str:
    name = "cluster-robust" if errors == "cluster" else errors
    if robust is None:
        return name
    if robust.label == "exact":
        return f"{name} (exact)"
    return f"{name} (exact in the full and the chosen model, approximate elsewhere along the path)"


def _levels(columns: tuple[Column, ...]) -> dict[str, tuple[str, ...]]:
    """Levels of every factor, the reference level among them."""
    levels: dict[str, list[str]] = {}
    for name, level in columns:
        if level:
            levels.setdefault(name, []).append(level)
    return {name: tuple(sorted(found)) for name, found in levels.items()}


def _scales(system: System, target: str) -> dict[str, float]:
    """Standard deviations (about 0 without an intercept) of the columns and the target."""
    root = np.sqrt(system.weight)
    names = [column_name(column) for column in system.columns]
    return {**dict(zip(names, (system.scale / root).tolist(), strict=True)), target: float(np.sqrt(system.tss) / root)}
