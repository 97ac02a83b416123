"""What a pass accumulates."""

from typing import Any, Protocol, runtime_checkable

from lsdr.regression.batch import Batch


@runtime_checkable
class State(Protocol):
    """Takes batches of rows, and merges with another of its kind that has seen other rows."""

    def add(self, batch: Batch, /) -> Any:
        """Take a batch."""

    def merge(self, other: Any, /) -> Any:
        """Take what `other` has seen, in place; `other` is not used afterwards."""
