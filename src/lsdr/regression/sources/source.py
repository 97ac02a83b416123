"""A table, wherever it is, as numbered parts."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lsdr.regression.batch import Batch
from lsdr.regression.plan import Plan
from lsdr.regression.sources.encoded import Encoded, Place, batches_of

# Rows of a part: enough that merging its state costs little beside reading it, few enough to keep workers even.
PART_ROWS = 2**15

# Reads the rows of a part, from its place on: stretches, each with its own place.
Read = Callable[[Plan, Place], Iterator[tuple[Encoded, Place]]]


@dataclass(frozen=True, eq=False)
class Part:
    """A fixed piece of a source: the same number holds the same rows whoever reads it, and however many do.

    Attributes:
        index: Its number.
        rows: How many rows it has, where known.
        plan: What is read of it.
        place: Where its first row is.
        read: Reads it; picklable where what it reads is.
    """

    index: int
    rows: int | None
    plan: Plan
    place: Place
    read: Read

    def batches(self) -> Iterator[Batch]:
        """Its rows, batch by batch."""
        start = 0
        for encoded, place in self.read(self.plan, self.place):
            yield from batches_of(encoded, self.plan, self.index, start, place)
            start += len(encoded.target)


# Parts for a plan, one after the other: what comes depends on the source and the plan alone. The flag says that the
# parts are only looked at, so that a source that can be read only once must keep what it gave.
Split = Callable[[Plan, bool], Iterator[Part]]


@dataclass(frozen=True, eq=False)
class Source:
    """A table as numbered parts.

    Attributes:
        description: How messages call it.
        rows: How many rows it has, where known without reading it.
        repeatable: Whether it can be read more than once.
        schema: Kind of every column: "number", "boolean" and "text" can be used; "date", "list", "binary" cannot.
        split: Makes the parts.
    """

    description: str
    rows: int | None
    repeatable: bool
    schema: Mapping[str, str]
    split: Split

    def parts(self, plan: Plan) -> Iterator[Part]:
        """The parts for a plan.

        Raises:
            ValueError: If the source cannot be read again, or its rows are not as they should be.
        """
        return self.split(plan, False)

    def peek(self, plan: Plan) -> Batch | None:
        """The first batch that has a usable row; None where there is none. A pass still sees its rows."""
        for part in self.split(plan, True):
            for batch in part.batches():
                if len(batch.y):
                    return batch
        return None

    def empty(self, plan: Plan) -> str:
        """Why `peek` found no row, for a message: which columns are missing most."""
        missing: Counter[str] = Counter()
        for part in self.split(plan, True):
            for batch in part.batches():
                missing.update(batch.missing_by)
        if not missing:
            return f"{self.description} has no rows"
        worst = ", ".join(f"{name!r} ({count} missing)" for name, count in missing.most_common(5))
        return (
            f"{self.description} has no row without missing values; most are missing in {worst}: leave such columns "
            "out of the features, or fill them in"
        )

    def distinct(self, column: str, limit: int = 1000) -> list[str | int | float]:
        """The values of a column, sorted, the missing ones left out; reads the whole column.

        Raises:
            ValueError: If there are more than `limit`.
        """
        found: set[str | int | float] = set()
        plan = Plan(target="", features=(), clusters=column)
        for part in self.split(plan, False):
            for rows, _ in part.read(plan, part.place):
                labels = rows.clusters
                assert labels is not None  # the plan asks for them
                values = labels.values if labels.missing is None else labels.values[~labels.missing]
                found.update(np.unique(values).tolist())
                if len(found) > limit:
                    raise ValueError(f"column {column!r} of {self.description} has more than {limit} different values")
        return sorted(found, key=lambda value: (isinstance(value, str), value))
