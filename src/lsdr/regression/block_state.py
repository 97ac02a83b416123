"""What cross-products and triangular factors by block have in common: the counts of their rows."""

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Tally
from lsdr.regression.columns import Column


class BlockState:
    """Counts of the rows of every block, and which states may be merged."""

    def __init__(self, blocks: int, intercept: bool, frequency: bool, columns: tuple[Column, ...]) -> None:
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}")
        self.blocks = blocks
        self.intercept = intercept
        self.frequency = frequency
        self.columns = columns
        self.tally = Tally(blocks)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of weight above 0, shape (blocks,)."""
        return self.tally.rows

    @property
    def weights(self) -> NDArray[np.float64]:
        """Sums of the weights, shape (blocks,); the rows where there are none."""
        return self.tally.weights

    @property
    def observations(self) -> NDArray[np.float64]:
        """What is n for degrees of freedom, shape (blocks,): the weights where they count rows, else the rows."""
        return self.tally.weights if self.frequency else self.tally.rows.astype(np.float64)

    @property
    def missing(self) -> int:
        """Rows left out because a value was missing."""
        return self.tally.missing

    def _refuse_unlike(self, other: "BlockState") -> None:
        mine, theirs = ((state.blocks, state.intercept, state.frequency) for state in (self, other))
        if mine != theirs:
            raise ValueError(f"cannot merge states whose blocks, intercept and frequency differ: {mine} and {theirs}")
