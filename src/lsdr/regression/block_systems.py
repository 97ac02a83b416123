"""Normal equations of any union of blocks, from the one state that a pass over the rows has left."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from lsdr.regression.columns import Term
from lsdr.regression.eliminate import eliminate, eliminate_many
from lsdr.regression.gram import Gram
from lsdr.regression.path import Path, StandardErrors
from lsdr.regression.r_factor import RFactor
from lsdr.regression.system import System, system_of_factor, system_of_moments

_BYTES = 2**26

# Robust errors of the system of some blocks.
ErrorsOf = Callable[[System, Iterable[int]], StandardErrors]


def block_systems(
    state: Gram | RFactor, groups: Sequence[Iterable[int]], terms: tuple[Term, ...], *, ridge: float | int = 0.0
) -> list[System]:
    """Systems of the given terms on each group of blocks; the rows are not read again.

    Cost: merging the blocks' O(p^2) numbers, then O(p^3) a group.

    Args:
        state: What the pass has left.
        groups: Blocks to be taken together, by number: folds, their complements, half-samples.
        terms: Candidate terms, in order of priority; columns of the state in none of them take no part.
        ridge: Penalty on the squared coefficients in their own units, the intercept free.
    """
    chosen = [sorted(group) for group in groups]
    rows = [float(state.observations[group].sum()) for group in chosen]
    if isinstance(state, Gram):
        return [
            system_of_moments(moments, state.columns, terms, rows=count, intercept=state.intercept, ridge=float(ridge))
            for moments, count in zip(state.totals(chosen), rows, strict=True)
        ]
    return [
        system_of_factor(
            state.factor(group),
            state.columns,
            terms,
            rows=count,
            weight=float(state.weights[group].sum()),
            intercept=state.intercept,
            shift=state.shift,
            ridge=float(ridge),
        )
        for group, count in zip(chosen, rows, strict=True)
    ]


def block_paths(
    state: Gram | RFactor,
    groups: Sequence[Iterable[int]],
    terms: tuple[Term, ...],
    *,
    ridge: float | int = 0.0,
    errors: ErrorsOf | None = None,
) -> Iterator[tuple[System, Path]]:
    """Systems of each group of blocks, as `block_systems` makes them, and their eliminations, in turn.

    As many are held at a time as fit into 64 MiB, at least one.

    Args:
        state: What the pass has left.
        groups: Blocks to be taken together.
        terms: Candidate terms.
        ridge: Penalty.
        errors: Makes the robust errors by which terms go; None: classical ones.
    """
    # A system and its path keep about ten tables of columns by columns.
    together = max(1, _BYTES // (80 * (len(state.columns) + 1) ** 2))
    for start in range(0, len(groups), together):
        some = groups[start : start + together]
        systems = block_systems(state, some, terms, ridge=ridge)
        if errors is None:
            yield from zip(systems, eliminate_many(systems), strict=True)
        else:
            for system, group in zip(systems, some, strict=True):
                yield system, eliminate(system, standard_errors=errors(system, group))
