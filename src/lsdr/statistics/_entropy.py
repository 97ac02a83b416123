"""Entropy of weights that do not sum to one yet."""

import torch
from jaxtyping import Float
from torch import Tensor


def entropy(weights: Float[Tensor, "k"]) -> Float[Tensor, ""]:
    """Entropy in nats of the weights divided by their sum; 0 log 0 = 0, with gradient 0 (it tends to infinity)."""
    p = weights / weights.sum()
    positive = p > 0
    # Both `where`s are needed: log's infinite slope at 0 times a masked 0 would be nan in the backward pass.
    return -torch.where(positive, p * torch.where(positive, p, 1).log(), 0).sum()
