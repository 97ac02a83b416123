"""Honest inference after selection: half of the rows select the model, the other half judges it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lsdr.regression.block_systems import ErrorsOf, block_paths
from lsdr.regression.blocks import halves
from lsdr.regression.choice import Split
from lsdr.regression.columns import Term
from lsdr.regression.crossvalidation import heldout
from lsdr.regression.gram import Gram
from lsdr.regression.path import Path
from lsdr.regression.path_steps import estimates_of
from lsdr.regression.r_factor import RFactor
from lsdr.regression.rules import choose
from lsdr.regression.system import System


@dataclass(frozen=True, eq=False)
class Honest:
    """Inference on the second half, and what it was made from.

    Args:
        split: The result.
        system: Normal equations of the second half.
        path: Their elimination; the model chosen is its step 0.
        blocks: Blocks of the second half.
    """

    split: Split
    system: System
    path: Path
    blocks: list[int]


def split_inference(
    state: Gram | RFactor,
    terms: tuple[Term, ...],
    *,
    rule: str,
    generator: np.random.Generator,
    folds: Sequence[Iterable[int]] = (),
    keep: int | None = None,
    p_value: float | int = 0.05,
    ridge: float | int = 0.0,
    errors: ErrorsOf | None = None,
) -> Honest | None:
    """Select on one half of the blocks, rule and folds included, and refit the chosen model on the other half.

    The rows of the second half have had no part in the choice, so that t, p and intervals are what they seem: of pure
    noise, 5 % of the survivors have p below 0.05, where the same rows used twice give most of them. The price is half
    of the rows, and a model that may differ from the one all rows choose.

    Source: Cox, "A note on data-splitting for the evaluation of significance levels", Biometrika 1975. Ridge shrinks
    the selection's coefficients only: the second half is fitted by plain least squares, since shrunken coefficients
    have no honest t.

    Cost: O(p^3) and an elimination; no row is read.

    Args:
        state: Block moments or factors.
        terms: Candidate terms.
        rule: As for the whole path.
        generator: Source of the halves.
        folds: The blocks of every fold, for the rules that need held-out errors.
        keep: As for the whole path.
        p_value: As for the whole path.
        ridge: Penalty of the selection.
        errors: Makes robust errors, by which terms go and by which they are judged; None: classical ones.

    Returns:
        None where a half is too small to fit what was chosen.
    """
    first, second = (half.tolist() for half in halves(state.blocks, generator, max(len(folds), 1)))
    if not (state.weights[first].sum() > 0 and state.weights[second].sum() > 0):
        return None
    [(selecting, path)] = block_paths(state, [first], terms, ridge=ridge, errors=errors)
    error = None
    if rule in ("cv", "one_se"):
        within = [sorted(set(fold).intersection(first)) for fold in folds]
        error = heldout(state, within, path.terms, path.size, ridge=ridge, errors=errors)
    index, _ = choose(
        path,
        rule,
        rows=selecting.rows,
        parameters=selecting.rows - path.df_resid,
        keep=keep,
        p_value=p_value,
        mse=None if error is None else error.mse,
        se=None if error is None else error.se,
    )
    # Forced, so that nothing is eliminated here.
    features = tuple(replace(term, forced=True) for term in path.terms_left(index))
    [(judging, refit)] = block_paths(state, [second], features, errors=errors)
    if not refit.df_resid[0] > 0:
        return None
    names = tuple(term.name for term in features)
    return Honest(Split(names, estimates_of(judging, refit, 0), selecting.rows, judging.rows), judging, refit, second)
