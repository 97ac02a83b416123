"""What to be careful about in a result, in sentences."""

from lsdr.regression.columns import column_name
from lsdr.regression.options import Options
from lsdr.regression.path import Path
from lsdr.regression.system import System

_SHOWN = 8


def notes_of(system: System, path: Path, options: Options, unfolded: bool) -> tuple[str, ...]:
    """Warnings about a path.

    Args:
        system: The normal equations of all rows.
        path: The path.
        options: What was asked for.
        unfolded: Whether held-out errors were asked for and could not be had.
    """
    notes = []
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
            f"Models of {_terms(size)} and more have no degrees of freedom left ({system.rows:g} rows): their t values "
            "are undefined, and terms go in the order of the least rise of the residual sum of squares."
        )
    if unfolded:
        notes.append("There are no held-out errors: fewer than two folds have rows.")
    if options.ridge > 0:
        notes.append("With ridge the t values are those of shrunken coefficients: no tests of whether a term is 0.")
    return tuple(notes)


def _terms(size: int) -> str:
    return "1 term" if size == 1 else f"{size} terms"
