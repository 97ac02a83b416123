"""Weights that follow the error."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def focal_weight(distance: Float[Tensor, "b m"], alpha: float | int = 1) -> Float[Tensor, "b m"]:
    r"""Weight of each coordinate by its own error, as a share of the largest in the example; carries no gradient.

    .. math:: w_k = \left( d_k / \max_j d_j \right)^{\alpha / 2} \in [0, 1]

    with the squared distances d, so that `alpha` is the power of the distance itself. All weights of an example without
    error are 0. They only ever weaken coordinates: the loss they weight gets smaller, by how much depends on how the
    errors are spread. Cost: that of one element-wise power.

    Source: Jiang et al., arXiv 2012.12821 (Focal Frequency Loss), whose code divides by the largest weight of
    each channel; here by that of the whole example, so a channel without errors is not raised to the rank of one with
    them. Pass `distance` with channels among the examples, (b * c, m / c), for theirs.

    Args:
        distance: Squared distances, not negative.
        alpha: How much the weights favour large errors; 0 weights all alike.

    Returns:
        The weights, detached.

    Raises:
        ValueError: If `alpha` is negative or not finite.

    Example:
        >>> focal_weight(torch.tensor([[4.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
        tensor([[1.0000, 0.5000, 0.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha is the power of the error in its weight: expected a finite number >= 0, got {alpha}")
    distance = distance.detach()
    largest = distance.amax(1, keepdim=True)
    nothing = largest == 0
    weight = (distance / torch.where(nothing, 1, largest)) ** (alpha / 2)
    return torch.where(nothing, 0, weight)
