"""Rows of a matrix that point the same way as another."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

COSINE = 0.999
FEWEST_COLUMNS = 8  # in fewer dimensions unrelated rows are parallel by chance
_SKETCH = 16
_MARGIN = 60.0  # chi-squared with 16 degrees of freedom is above it once in two million
_ROWS = 1024


def duplicated_rows(matrix: Float[Tensor, "m n"], norms: Float[Tensor, "m"]) -> list[tuple[int, int]] | None:
    r"""Rows parallel to an earlier one: \|cosine\| > 0.999, either sign.

    Rows are compared in 16 random directions first, in order of one of them, and only what is near there is compared
    in full, so that no m x m table is made. A pair is missed about once in a million.

    Cost: O(16 m n), and about a tenth of O(16 m^2) to compare.

    Args:
        matrix: Finite, of any floating type.
        norms: Norms of its rows; rows of norm 0 are left out.

    Returns:
        (row, the earlier row that it repeats), each row once, in order; None if the matrix has fewer than 8 columns,
        where rows are parallel by chance.

    Example:
        >>> rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
        >>> rows[4] = -2 * rows[1]
        >>> duplicated_rows(rows, rows.double().norm(dim=1))
        [(4, 1)]
    """
    n = matrix.shape[1]
    if n < FEWEST_COLUMNS:
        return None
    alive = (norms > 0).nonzero().flatten()
    if len(alive) < 2:
        return []
    generator = torch.Generator().manual_seed(0)  # the same answer every time
    directions = torch.randn(n, _SKETCH, generator=generator)
    sketch = torch.cat([rows.float() @ directions for rows in matrix.split(max(1, (1 << 22) // n))])
    sketch = sketch[alive] / norms[alive, None].float()
    order = sketch[:, 0].abs().argsort()
    sketch, alive = sketch[order], alive[order]
    first = sketch[:, 0].abs().contiguous()
    # Unit vectors at this cosine are this far apart; so are, up to chance, their sketches.
    apart = 2 * (1 - COSINE)
    limit = _MARGIN * apart
    ends = torch.searchsorted(first, first + math.sqrt(apart) * 5, right=True)
    squares = sketch.square().sum(1)
    taken = torch.zeros(len(alive), dtype=torch.bool)
    found: list[tuple[int, int]] = []
    for start in range(0, len(alive), _ROWS):
        stop = min(start + _ROWS, len(alive))
        last = int(ends[stop - 1])
        products = sketch[start:stop] @ sketch[start:last].T
        near = (squares[start:stop, None] + squares[None, start:last] - 2 * products.abs() < limit).triu(1)
        for i in near.any(1).nonzero().flatten().tolist():
            if taken[start + i]:
                continue
            others = (near[i] & ~taken[start:last]).nonzero().flatten() + start
            row, rows = alive[start + i], alive[others]
            cosines = (matrix[rows].double() @ matrix[row].double()) / (norms[rows] * norms[row])
            same = others[cosines.abs() > COSINE]
            taken[same] = True
            if len(same):
                first_of_all, *rest = sorted([int(row), *alive[same].tolist()])
                found += [(each, first_of_all) for each in rest]
    return sorted(found)
