"""Names of the design's columns, and the terms they make: what is dropped, is dropped as a whole term."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

# (term, level): the level is "" for the column of a number.
Column = tuple[str, str]


def column_name(column: Column) -> str:
    """What a column is called in tables: "area", or "region[north]".

    Example:
        >>> column_name(("area", "")), column_name(("region", "north"))
        ('area', 'region[north]')
    """
    term, level = column
    return f"{term}[{level}]" if level else term


@dataclass(frozen=True)
class Term:
    """What is dropped as one: the column of a number, the dummies of a factor, or the columns of a formula's term."""

    name: str
    columns: tuple[Column, ...]
    forced: bool = False


def terms_of(
    columns: Iterable[Column],
    order: Sequence[str],
    forced: Collection[str] = (),
    *,
    factors: Collection[str] | None = None,
    intercept: bool = True,
) -> tuple[Term, ...]:
    """The terms of a design, in the order asked for, each factor without the dummy of its reference level.

    A factor comes with a dummy for every level. Beside an intercept one of them says nothing new, so that of its first
    level is left out: numbers count upwards ("2" before "10"), everything else is sorted as text. Without an intercept
    the first factor keeps all its levels, as patsy and formulaic code it. A factor of a single level keeps it, so that
    the model can say that it is constant.

    Args:
        columns: The columns there are, in any order.
        order: Names of the terms, highest priority first.
        forced: Names of the terms that are never removed.
        factors: Terms whose columns are the dummies of all their levels; None: every term whose columns have levels.
            Columns of other terms (a formula's spline, say) are all kept, in the order in which they come.
        intercept: Whether the model has one.

    Raises:
        ValueError: If a term has no column, a column no term, or a forced term is not among the terms.

    Example:
        >>> columns = [("area", ""), ("region", "south"), ("region", "north"), ("region", "east")]
        >>> [term.columns for term in terms_of(columns, ["region", "area"])]
        [(('region', 'north'), ('region', 'south')), (('area', ''),)]
    """
    found: dict[str, list[Column]] = {name: [] for name in order}
    for column in columns:
        if column[0] not in found:
            raise ValueError(f"column {column_name(column)!r} belongs to none of the terms {list(found)}")
        found[column[0]].append(column)
    empty = [name for name, own in found.items() if not own]
    if empty:
        raise ValueError(f"no value of {', '.join(map(repr, empty))} has been seen: leave it out of the features")
    unknown = sorted(set(forced) - set(found))
    if unknown:
        raise ValueError(f"forced terms must be among the features {list(found)}, got {unknown}")
    if factors is None:
        factors = {term for term, own in found.items() if any(level for _, level in own)}
    drops = intercept
    terms = []
    for name, own in found.items():
        if name in factors:
            own = _sorted_levels(own)
            if drops and len(own) > 1:
                own = own[1:]
            drops = True
        terms.append(Term(name, tuple(own), name in forced))
    return tuple(terms)


def _sorted_levels(columns: list[Column]) -> list[Column]:
    try:
        return sorted(columns, key=lambda column: (float(column[1]), column[1]))
    except ValueError:
        return sorted(columns)
