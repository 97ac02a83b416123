"""Several states that go through the same pass."""

from collections.abc import Callable, Sequence
from typing import Any

from lsdr.regression.batch import Batch


class Together:
    """States that see the same batches: what a source that can be read only once must leave in one go.

    Args:
        empties: Each makes one empty state.
    """

    def __init__(self, empties: Sequence[Callable[[], Any]]) -> None:
        """Start with every state empty."""
        self.states = tuple(empty() for empty in empties)

    def add(self, batch: Batch) -> "Together":
        """Add a batch to every state."""
        for state in self.states:
            state.add(batch)
        return self

    def merge(self, other: "Together") -> "Together":
        """Merge every state with its counterpart."""
        for mine, theirs in zip(self.states, other.states, strict=True):
            mine.merge(theirs)
        return self
