"""The kNN probe: how well the nearest codes tell a code's class."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lsdr.measures.nearest import nearest


@torch.no_grad()
def knn_probe(
    codes: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    k: int = 20,
    temperature: float = 0.07,
    *,
    itself: bool = False,
) -> Int[Tensor, " m"]:
    r"""Class of each query by a weighted vote of the k codes with the largest cosine.

    .. math:: \arg\max_c \sum_{i \in \mathrm{kNN}} [y_i = c] \exp(\cos_i / T)

    Where there are no k codes, all vote. A constant code, of which all are at distance 0, votes for whatever comes
    first. O(n m d).

    Source: Wu et al., arXiv 1805.01978, section 3.4, with T = 0.07; k = 20 as in DINO (arXiv 2104.14294).

    Args:
        codes: Finite codes of n examples.
        labels: Their classes, any integers.
        queries: Finite codes whose classes are wanted.
        k: Neighbours.
        temperature: T.
        itself: Whether the queries are the examples, none of which votes for itself.

    Raises:
        ValueError: If there are no examples (with `itself`, not two).

    Example:
        >>> codes = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> knn_probe(codes, torch.tensor([4, 4, 2]), torch.tensor([[1.0, 0.2], [0.1, 1.0]]), k=1).tolist()
        [4, 2]
    """
    directions = F.normalize(codes.double())
    distance, index = nearest(F.normalize(queries.double()), directions, min(k, len(codes) - itself), itself=itself)
    # Of unit vectors |a - b|^2 = 2 - 2 cos; the largest weight is taken out so that none overflows.
    near = -distance.square() / (2 * temperature)
    weights = (near - near.amax(1, keepdim=True)).exp()
    classes, target = labels.unique(return_inverse=True)
    votes = weights.new_zeros((len(queries), len(classes))).scatter_add_(1, target[index], weights)
    winners: Tensor = classes[votes.argmax(1)]
    return winners
