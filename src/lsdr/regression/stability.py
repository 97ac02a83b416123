"""How often each term survives when half of the rows select: stability selection by complementary pairs."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lsdr.regression.block_systems import ErrorsOf, block_paths
from lsdr.regression.blocks import halves
from lsdr.regression.columns import Term
from lsdr.regression.gram import Gram
from lsdr.regression.path import Path
from lsdr.regression.r_factor import RFactor


def selection_frequencies(
    state: Gram | RFactor,
    terms: tuple[Term, ...],
    sizes: NDArray[np.integer],
    *,
    resamples: int,
    folds: int,
    generator: np.random.Generator,
    ridge: float | int = 0.0,
    errors: ErrorsOf | None = None,
) -> pd.DataFrame:
    """Share of half-samples in which a term is in the model of each size.

    Half-samples are unions of blocks of rows and come in complementary pairs, as in Shah & Samworth, "Variable
    selection with error control: another look at stability selection", JRSS B 2013, section 2 (after Meinshausen &
    Buhlmann, JRSS B 2010). Deviates from the paper in that rows move by blocks, drawn once by hash, so that one pass
    serves all resamples. An odd number of resamples is rounded up.

    Cost: O(p^3) a resample; no row is read.

    Args:
        state: Block moments or factors.
        terms: Candidate terms.
        sizes: (steps,) sizes of the models on the whole path.
        resamples: Number of half-samples.
        folds: Number of folds that the blocks make; halves hold half of every fold.
        generator: Source of the halves.
        ridge: Penalty, as on the whole path.
        errors: Makes the robust errors by which terms go; None: classical ones.

    Returns:
        Sizes by terms, each in [0, 1].
    """
    groups = []
    for _ in range((resamples + 1) // 2):
        groups += [half.tolist() for half in halves(state.blocks, generator, folds)]
    weights = np.asarray(state.weights)
    groups = [group for group in groups if weights[group].sum() > 0]
    names = [term.name for term in terms]
    counts = np.zeros((len(sizes), len(names)))
    for _, path in block_paths(state, groups, terms, ridge=ridge, errors=errors):
        counts += _present(path, names, sizes)
    return pd.DataFrame(counts / max(len(groups), 1), index=pd.Index(sizes, name="size"), columns=names)


def _present(path: Path, names: list[str], sizes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(steps, terms) whether a term is in the model of a size."""
    gone = {name: step for step, name in enumerate(path.order)}
    kept = {term.name for term in path.terms}
    # A term is in step s while it has not been removed before: removed at step r means present in steps 0..r.
    until = np.array([gone.get(name, len(path.size)) if name in kept else -1 for name in names])
    steps = np.minimum(np.searchsorted(-path.size, -sizes), len(path.size) - 1)
    present: NDArray[np.bool_] = steps[:, None] <= until[None, :]
    return present
