"""The pass over the rows, by cross-products where they are good enough and by QR where not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch, rows_of
from lsdr.regression.block_systems import block_systems
from lsdr.regression.certificate import DIGITS, FIRST_VIF_LIMIT, doubt, is_small, reason
from lsdr.regression.columns import Column, Term
from lsdr.regression.gram import Gram
from lsdr.regression.r_factor import RFactor
from lsdr.regression.system import System
from lsdr.regression.together import Together

# Rows that decide on the route beforehand, and 8 more a column.
_ENOUGH = 2048

Terms = Callable[[tuple[Column, ...]], tuple[Term, ...]]


# One pass over the source: takes what makes an empty state, returns the state of all rows.
Read = Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True, eq=False)
class Accumulated:
    """What the passes have left.

    Args:
        state: Cross-products or triangular factors by block.
        terms: All candidate terms, those that never enter among them.
        system: The normal equations of all rows.
        reason: Why this route, in a sentence.
        notes: Warnings.
        beside: State of what rode along, if anything did.
    """

    state: Gram | RFactor
    terms: tuple[Term, ...]
    system: System
    reason: str
    notes: tuple[str, ...] = ()
    beside: Any = None


def accumulate(
    read: Read,
    first: Batch,
    terms_of: Terms,
    *,
    blocks: int,
    method: str = "auto",
    intercept: bool = True,
    frequency: bool = False,
    ridge: float | int = 0.0,
    rows: float | int | None = None,
    repeatable: bool = True,
    beside: Callable[[], Any] | None = None,
) -> Accumulated:
    """Read all rows, by the route that leaves enough digits.

    With method "auto" the first batch decides where it is clear. If it was not, and all rows say otherwise, they are
    read a second time, by QR; what cannot be read again keeps its cross-products, with a warning.

    Args:
        read: One pass over the source.
        first: Its first rows.
        terms_of: Terms made of columns.
        blocks: How many blocks rows are in.
        method: "auto", "gram" or "qr".
        intercept: Whether the models have one.
        frequency: Whether weights count rows.
        ridge: Penalty.
        rows: How many rows there are, where that is known beforehand.
        repeatable: Whether `read` can be called again.
        beside: Makes states of what is to ride along the (first) pass.
    """
    gram = partial(Gram, blocks, intercept, frequency)

    def factor() -> Callable[[], RFactor]:
        # The means and not the batch: this goes to every part, and to every worker.
        return partial(RFactor, blocks, intercept, frequency, means_of(first), first.columns)

    def riding(empty: Callable[[], Any]) -> tuple[Any, Any]:
        """The state of one pass, and that of what rides along."""
        if beside is None:
            return read(empty), None
        state, other = read(partial(Together, (empty, beside))).states
        return state, other

    def system_of(state: Gram | RFactor) -> System:
        return block_systems(state, [range(state.blocks)], terms_of(state.columns), ridge=ridge)[0]

    def finished(state: Gram | RFactor, system: System, because: str, *notes: str) -> Accumulated:
        return Accumulated(state, terms_of(state.columns), system, reason(system, because), notes, other)

    because = "asked for" if method == "qr" else None
    if method == "auto":
        because = _first_doubt(
            Gram(1, intercept, frequency), first, system_of, is_small(rows, len(first.columns)), repeatable
        )
    if because is not None:
        state, other = riding(factor())
        return finished(state, system_of(state), because)
    state, other = riding(gram)
    system = system_of(state)
    trouble = doubt(system, small=repeatable and is_small(system.rows, len(system.columns)))
    if method == "gram":
        notes = () if trouble is None else (f'method="gram" was asked for, but {trouble}: "auto" or "qr" do better.',)
        return finished(state, system, "asked for", *notes)
    if trouble is None:
        return finished(state, system, "well enough conditioned for one pass")
    if not repeatable:
        return finished(state, system, "the rows could not be read again", _kept(system, trouble))
    state = read(factor())
    return finished(state, system_of(state), f"{trouble}, so the rows were read a second time")


def _first_doubt(
    gram: Gram, first: Batch, system_of: Callable[[Gram], System], small: bool, repeatable: bool
) -> str | None:
    """Why to start with QR: a clause, None to start with cross-products."""
    width = len(first.columns)
    if len(first.y) <= 2 * (width + 1):
        # So few rows are collinear by chance. All rows will tell, if they can be read again.
        return None if repeatable else "the first rows are too few to judge by, and they can be read only once"
    # As many rows as judge it well: the pass will square all of them again.
    enough = np.arange(min(len(first.y), _ENOUGH + 8 * width))
    gram.add(
        Batch(
            first.columns,
            rows_of(first.values, enough),
            first.y[enough],
            None if first.weights is None else first.weights[enough],
            None,
            np.zeros_like(first.blocks[enough]),
        )
    )
    if not gram.weights.sum() > 0:
        return None
    because = doubt(system_of(gram), FIRST_VIF_LIMIT, small)
    return None if because is None else f"in the first {len(enough)} rows {because}"


def _kept(system: System, because: str) -> str:
    return (
        f"QR would be better here ({because}), but this source can be read only once: the t values have about "
        f"{system.digits:.0f} digits instead of at least {DIGITS}. Pass a function that returns the iterator, or "
        'ask for method="qr" from the start.'
    )


def means_of(batch: Batch) -> NDArray[np.float64]:
    """Plain means of the columns and, last, of the target: what to take numbers about that are squared later."""
    return np.append(batch.x.mean(0), batch.y.mean())
