"""What is done with one part, wherever that is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from lsdr.regression.sources.source import Part
from lsdr.regression.state import State

S = TypeVar("S", bound=State)


def work(part: Part, empty: Callable[[], S]) -> tuple[S, int]:
    """The state of one part, and how many rows it read."""
    state = empty()
    rows = 0
    for batch in part.batches():
        state.add(batch)
        rows += len(batch.y) + batch.missing
    return state, rows


def alone(part: Part, empty: Callable[[], S]) -> tuple[S, int]:
    """`work` in a process of its own, where products must be told to keep to one thread."""
    with one_thread():
        return work(part, empty)


def one_thread() -> AbstractContextManager[Any]:
    """Products keep to one thread.

    Not for speed alone: with several threads OpenBLAS sums in another order, so bits would depend on the machine.
    """
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limited


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The linear algebra that is loaded; looking for it takes as long as a pass over a small table."""
    return ThreadpoolController()
