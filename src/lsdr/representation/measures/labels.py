"""Which labels a probe gets to learn from."""

import torch
from jaxtyping import Int
from torch import Tensor


def draw_labels(labels: Int[Tensor, " n"], share: float, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Draw a share of the labels: of every class its share, rounded, and one at least.

    Args:
        labels: Classes of n examples.
        share: Above 0, up to 1.
        generator: Source of randomness, on the CPU.

    Returns:
        Places of the drawn ones, ascending.

    Example:
        >>> len(draw_labels(torch.tensor([0] * 40 + [1] * 3), 0.1, torch.Generator().manual_seed(0)))
        5
    """
    drawn = []
    for name in labels.unique():
        places = (labels == name).nonzero().flatten()
        count = max(1, round(share * len(places)))
        drawn.append(places[torch.randperm(len(places), generator=generator)[:count].to(places.device)])
    return torch.cat(drawn).sort().values if drawn else labels.new_zeros(0)
