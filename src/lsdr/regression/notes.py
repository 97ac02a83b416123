"""What to be careful about in a result, in sentences."""

from lsdr.regression.columns import column_name
from lsdr.regression.options import Options
from lsdr.regression.path import Path
from lsdr.regression.plan import Plan
from lsdr.regression.system import System

_SHOWN = 8


def notes_of(system: System, path: Path, options: Options, plan: Plan, unfolded: bool) -> tuple[str, ...]:
    """Warnings about a path.

    Args:
        system: The normal equations of all rows.
        path: The path.
        options: What was asked for.
        plan: What was read.
        unfolded: Whether held-out errors were asked for and could not be had.
    """
    notes = []
    if plan.nameless:
        notes.append(
            f"Left out, as a column without a name is an index as a rule: {', '.join(map(repr, plan.nameless))}; name "
            "it in `features` to use it."
        )
    notes += [
        f"{term.name!r} has a level for every row or two, so it looks like an identifier: leave it out of the "
        "features, or merge its values into fewer."
        for term in system.terms
        if term.name in plan.categorical and 2 * len(term.columns) > system.rows > 10
    ]
    if system.aliased:
        gone = [f"{column_name(column.column)} ({column.reason})" for column in system.aliased]
        more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
        notes.append(f"Dropped before the first step: {', '.join(gone[:_SHOWN])}{more}.")
    if not system.tss > 0:
        notes.append("The target is constant: there is nothing to explain.")
    elif (exact := (path.rss == 0) & (path.df_resid > 0)).any():
        size = int(path.size[exact].min())
        notes.append(
            f"Models of {_terms(size)} and more fit the target exactly: their t values are infinite (or undefined, "
            "where a coefficient is 0)."
        )
    if (full := path.df_resid <= 0).any():
        size = int(path.size[full].min())
        notes.append(
            f"Models of {_terms(size)} and more have no degrees of freedom left ({_count(system.rows, 'row')}): their "
            "t values are undefined, and terms go in the order of the least rise of the residual sum of squares."
        )
    if unfolded:
        notes.append("There are no held-out errors: fewer than two folds have rows.")
    if options.ridge > 0:
        notes.append("With ridge the t values are those of shrunken coefficients: no tests of whether a term is 0.")
    return tuple(notes)


def _terms(size: int) -> str:
    return _count(size, "term")


def _count(count: float | int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:g} {what}s"
