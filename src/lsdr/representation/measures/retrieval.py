"""Retrieval: what is found nearest to a code."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lsdr.measures.nearest import nearest

_CHUNK = 256


@torch.no_grad()
def mean_average_precision(
    queries: Float[Tensor, "m d"],
    wanted: Int[Tensor, " m"],
    codes: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
) -> float:
    r"""Mean over queries of the average precision of the examples ranked by cosine, those of the query's class right.

    .. math:: \frac1m \sum_q \frac{1}{R_q} \sum_{i: y_i = y_q} \frac{\#\{j \preceq i: y_j = y_q\}}{\mathrm{rank}_q(i)}

    In (0, 1]; about the share of the class where codes know nothing of it. Equal cosines are ranked as they come.
    Queries of a class that no example has are left out. O(m n (d + log n)).

    Args:
        queries: Finite codes to search with.
        wanted: Their classes.
        codes: Finite codes to search among.
        labels: Their classes.

    Returns:
        The mean; nan if no query has a right answer.

    Example:
        >>> codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> mean_average_precision(codes[:1], torch.tensor([0]), codes, torch.tensor([0, 1, 0]))
        0.8333333
    """
    directions, total, count = F.normalize(codes.double()), 0.0, 0
    ranks = torch.arange(1, len(codes) + 1, device=codes.device)
    for start in range(0, len(queries), _CHUNK):
        part = slice(start, start + _CHUNK)
        order = (F.normalize(queries[part].double()) @ directions.T).argsort(dim=1, descending=True, stable=True)
        right = labels[order] == wanted[part, None]
        number = right.sum(1)
        precision = right.double().cumsum(1) / ranks
        average = (precision * right).sum(1)[number > 0] / number[number > 0]
        total, count = total + float(average.sum()), count + len(average)
    return total / count if count else float("nan")


@torch.no_grad()
def view_retrieval(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """Share of examples whose code in view a is nearest, by cosine, to their own code in view b.

    1 / n by chance. Needs invariance and codes that differ between examples, so a constant code fails.

    Args:
        a: Codes of n examples in one view.
        b: Their codes in another.

    Returns:
        The share; nan of codes that are not finite.

    Example:
        >>> view_retrieval(torch.eye(3), torch.eye(3)[[0, 2, 1]])
        0.3333333
    """
    if not len(a) or not bool(a.isfinite().all() and b.isfinite().all()):
        return float("nan")
    _, index = nearest(F.normalize(a.double()), F.normalize(b.double()), 1)
    return float((index[:, 0] == torch.arange(len(a), device=index.device)).double().mean())
