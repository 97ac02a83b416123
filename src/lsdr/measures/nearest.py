"""Nearest neighbours without a matrix of all distances."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# A difference of rounding is none: squared distances below this share of the squared norms count as zero, so that
# copies are recognised as copies. Features in float32 are not known better.
_SAME = 1e-13


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "m _"], k: int, *, itself: bool = False, chunk: int = 1024
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest candidates of each query, nearest first.

    Exact up to rounding in float64, relative to the distance from the mean of the candidates; points that only rounding
    tells apart are at distance 0. Cost: n m d operations, in blocks of `chunk` by `chunk` distances.

    Args:
        queries: Points whose neighbours are sought.
        candidates: Points among which they are sought, at least k (k + 1 with `itself`).
        k: How many.
        itself: Whether queries and candidates are the same points, each of which is not its own neighbour.
        chunk: Points compared at once with as many others.

    Returns:
        Distances and indices into the candidates.

    Raises:
        ValueError: If there are too few candidates.

    Example:
        >>> distance, index = nearest(torch.tensor([[0.0]]), torch.tensor([[3.0], [1.0], [-2.0]]), 2)
        >>> distance.tolist(), index.tolist()
        ([[1.0, 2.0]], [[1, 2]])
    """
    if k < 1 or len(candidates) < k + itself:
        raise ValueError(f"k={k} neighbours cannot be found among {len(candidates)} points")
    # Distances do not depend on the origin, but their rounding does.
    centre = candidates.double().mean(0)
    places = torch.arange(len(candidates), device=candidates.device)
    distances, indices = [], []
    for start in range(0, len(queries), chunk):
        points = queries[start : start + chunk].double() - centre
        best = points.new_empty((len(points), 0))
        where = places.new_empty((len(points), 0))
        for columns in places.split(chunk):
            found = squared_distances(points, candidates[columns].double() - centre)
            if itself:
                rows = torch.arange(start, start + len(points), device=places.device)
                found[rows[:, None] == columns] = torch.inf
            found = torch.cat([best, found], 1)
            best, order = found.topk(min(k, found.shape[1]), dim=1, largest=False)
            where = torch.cat([where, columns.expand(len(points), -1)], 1).gather(1, order)
        distances.append(best.sqrt())
        indices.append(where)
    if not distances:
        return candidates.new_empty((0, k), dtype=torch.float64), places.new_empty((0, k))
    return torch.cat(distances), torch.cat(indices)


def squared_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Squared Euclidean distances by the fast formula, exactly 0 between points that only rounding tells apart."""
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    distance = norms - 2 * (a @ b.T)
    return distance.masked_fill_(distance < _SAME * norms, 0.0)
