"""One pass over a stored matrix: entries that are no numbers, the norms of its rows and columns."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 1 << 22  # entries widened at once: 32 MB


@dataclass(frozen=True, eq=False)
class Entries:
    """What a matrix holds, entry by entry; norms in float64, whatever the matrix is stored in."""

    nonfinite: int
    """How many entries are NaN or infinite."""
    rows: Float[Tensor, "m"]
    """Norm of each row."""
    columns: Float[Tensor, "n"]
    """Norm of each column."""

    @property
    def frobenius(self) -> float:
        """Root of the sum of all squares."""
        return float(self.rows.norm())


def read_entries(matrix: Float[Tensor, "m n"]) -> Entries:
    """Count what is not finite and sum the squares of rows and columns, block by block.

    Args:
        matrix: Shape (m, n), of any floating type; half precision and float8 are widened a block at a time.
    """
    m, n = matrix.shape
    rows, columns, nonfinite = [], torch.zeros(n, dtype=torch.float64), 0
    for stored in matrix.split(max(1, _BLOCK // max(n, 1))):
        block = stored.double()
        nonfinite += block.numel() - int(block.isfinite().sum())
        squares = block.square()  # not in place: a float64 block is the weights themselves
        rows.append(squares.sum(1))
        columns += squares.sum(0)
    return Entries(nonfinite, torch.cat(rows).sqrt() if m else columns[:0], columns.sqrt())


def dead(norms: Float[Tensor, "k"], share: float = 1e-3) -> int:
    """How many directions are zero or nearly so: their norm is at most `share` of the root mean square of all.

    A matrix of zeros has no dead directions: it is a layer that has not started, which is another matter.

    Example:
        >>> dead(torch.tensor([1.0, 2.0, 0.0, 1e-5], dtype=torch.float64))
        2
    """
    scale = float(norms.norm()) / math.sqrt(max(len(norms), 1))
    return int((norms <= share * scale).sum()) if scale > 0 and math.isfinite(scale) else 0
