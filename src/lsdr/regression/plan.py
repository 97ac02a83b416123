"""What one pass reads: which columns are what, and how rows become folds; resolved against a source."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, Protocol, runtime_checkable

from lsdr.regression.blocks import block_count

# What a column may hold and be used for; every other kind is refused in `_kind_checked`.
_USABLE = ("number", "boolean", "text")
# What readers and writers call a column without a name, which is the index of a data frame as a rule.
_NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Columns by role, and how rows are dealt to blocks. Made by `make_plan`; the same for every worker.

    Attributes:
        target: The column that is explained; "" where only labels are looked up.
        features: The columns that explain it, in order of priority.
        categorical: Those of the features that are factors (one dummy a level).
        labels: Those of them that the caller named, so that even numbers are labels.
        forced: Those of the features that are never removed.
        weights: Column of weights; a row of weight 0 is read and not used.
        clusters: Column of cluster labels; a cluster lies wholly in one block.
        fold_column: Column that says which fold a row belongs to.
        fold_labels: The labels of `fold_column`, sorted; the k-th is fold k.
        folds: How many folds.
        blocks: How many blocks rows are hashed into.
        seed: Of the hash.
        missing: Whether a row with a missing value is left out or refused.
        frequency: Whether weights say how often a row occurred (else: how precise it is).
        nameless: Columns without a name, which are no features unless the caller names them.
    """

    target: str
    features: tuple[str, ...]
    categorical: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    weights: str | None = None
    clusters: str | None = None
    fold_column: str | None = None
    fold_labels: tuple[str | int | float, ...] = ()
    folds: int = 5
    blocks: int = 20
    seed: int = 0
    missing: Literal["drop", "raise"] = "drop"
    frequency: bool = False
    nameless: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that must be read, each once: the features first."""
        others = (self.target, self.weights, self.clusters, self.fold_column)
        return tuple(dict.fromkeys([*self.features, *(name for name in others if name)]))


@runtime_checkable
class Described(Protocol):
    """What `make_plan` asks of a source."""

    @property
    def description(self) -> str:
        """How messages call it."""

    @property
    def repeatable(self) -> bool:
        """Whether it can be read more than once."""

    @property
    def schema(self) -> Mapping[str, str]:
        """Kind of every column."""

    def distinct(self, column: str, limit: int) -> list[str | int | float]:
        """The values of a column, sorted; more than `limit` are refused."""


def make_plan(
    source: Described,
    target: Any,
    *,
    features: Sequence[Any] | None = None,
    categorical: Iterable[Any] = (),
    forced: Iterable[Any] = (),
    weights: str | None = None,
    weight_kind: str = "analytic",
    clusters: str | None = None,
    fold_column: str | None = None,
    folds: int = 5,
    seed: int = 0,
    missing: str = "drop",
) -> Plan:
    """Resolve names against what the source has.

    Args:
        source: What `open_source` returned.
        target: The column to explain: numbers, or true and false as 1 and 0.
        features: The columns that may explain it; None takes all that have a name and no other role.
        categorical: Features whose numbers are labels. Text is a factor by itself.
        forced: Features that are never removed.
        weights: Column of weights.
        weight_kind: "analytic" (precision) or "frequency" (whole numbers: how often the row occurred).
        clusters: Column of cluster labels.
        fold_column: Column of folds. Its labels are looked up first where the source can be read twice; otherwise
            they must be 0 ... folds - 1.
        folds: Number of folds where there is no `fold_column`, or where it cannot be looked up.
        seed: Of the hash that deals rows to blocks.
        missing: "drop" leaves rows with a missing value out and counts them; "raise" refuses them.

    Raises:
        ValueError: If a column is not there (close names are offered), cannot be used, or has two roles.
    """
    _one_of("weight_kind", weight_kind, ("analytic", "frequency"))
    policy: Literal["drop", "raise"] = "raise" if _one_of("missing", missing, ("drop", "raise")) == "raise" else "drop"
    categorical, forced = _names("categorical", categorical), _names("forced", forced)
    roles = {"target": target, "weights": weights, "clusters": clusters, "fold_column": fold_column}
    for role, name in roles.items():
        if name is not None:
            _present(source, name, role)
    for name in (target, weights):
        if name is not None and _kind_checked(source, name) == "text":
            raise ValueError(f"column {name!r} of {source.description} holds text, but it must hold numbers")
    for name in (clusters, fold_column):
        if name is not None:
            _kind_checked(source, name)
    chosen = _features(source, features, roles)
    for role, names in (("categorical", categorical), ("forced", forced)):
        for name in names:
            if name not in chosen:
                _present(source, name, role)
                raise ValueError(
                    f"{role} names {name!r}, which is not among the features: add it to them, or drop it here"
                )
    factors = tuple(name for name in chosen if name in categorical or _kind_checked(source, name) == "text")
    labels: tuple[str | int | float, ...] = ()
    if fold_column is not None and source.repeatable:
        labels = tuple(source.distinct(fold_column, limit=1000))
        folds = len(labels)
    if folds < 2:
        found = f"column {fold_column!r} has {folds}" if fold_column is not None else f"got folds={folds}"
        raise ValueError(f"held-out errors need at least 2 folds, {found}")
    return Plan(
        target=target,
        features=chosen,
        categorical=factors,
        labels=categorical,
        forced=forced,
        weights=weights,
        clusters=clusters,
        fold_column=fold_column,
        fold_labels=labels,
        folds=folds,
        blocks=block_count(folds),
        seed=seed,
        missing=policy,
        frequency=weights is not None and weight_kind == "frequency",
        nameless=() if features is not None else tuple(name for name in _others(source, roles) if name not in chosen),
    )


def _features(source: Described, features: Sequence[Any] | None, roles: Mapping[str, str | None]) -> tuple[str, ...]:
    if features is None:
        chosen = tuple(name for name in _others(source, roles) if not _NAMELESS.fullmatch(name))
        if not chosen:
            raise ValueError(
                f"{source.description} has no column besides {', '.join(map(repr, source.schema))}: nothing to reduce"
            )
    else:
        chosen = _names("features", features)
        if not chosen:
            raise ValueError("features is empty: name at least one column, or leave it out to take all")
        for name in chosen:
            _present(source, name, "features")
        for role in ("target", "weights", "fold_column"):
            if roles[role] in chosen:
                raise ValueError(f"{roles[role]!r} is the {role}, so it cannot be one of the features")
    for name in chosen:
        _kind_checked(source, name)
    return chosen


def _others(source: Described, roles: Mapping[str, str | None]) -> list[str]:
    return [name for name in source.schema if name not in roles.values()]


def _names(role: str, names: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"{role} must be a list of names, got the text {names!r}: write [{names!r}]")
    names = tuple(names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{role} names {', '.join(map(repr, twice))} twice")
    return names


def _present(source: Described, name: Any, role: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{role} must be the name of a column, as text, got {name!r}: write {str(name)!r}")
    if name in source.schema:
        return
    close = get_close_matches(name, list(source.schema), n=3, cutoff=0.5)
    lower = [have for have in source.schema if have.lower().strip() == name.lower().strip()]
    if lower or close:
        hint = "did you mean " + " or ".join(map(repr, dict.fromkeys([*lower, *close]))) + "?"
    else:
        shown = list(source.schema)[:20]
        hint = "it has " + ", ".join(map(repr, shown)) + (", ..." if len(source.schema) > len(shown) else "")
    raise ValueError(f"{source.description} has no column {name!r} ({role}); {hint}")


def _kind_checked(source: Described, name: str) -> str:
    kind = source.schema[name]
    if kind in _USABLE:
        return kind
    advice = {
        "date": "turn it into numbers (days since a start, month, year) or leave it out of the features",
        "list": "spread its elements over columns of their own or leave it out of the features",
    }.get(kind, "leave it out of the features")
    raise ValueError(f"column {name!r} of {source.description} holds {_PLURAL.get(kind, kind)}: {advice}")


_PLURAL = {"date": "dates or times", "list": "lists or records", "binary": "bytes"}


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{option} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
