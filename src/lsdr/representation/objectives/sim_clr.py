"""SimCLR: pick an example's other view out of all rows of the batch."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.nn import functional


def sim_clr(
    first: Float[Tensor, "b d"], second: Float[Tensor, "_ _"], temperature: float = 0.5, *, gather: bool = True
) -> Float[Tensor, " b"]:
    r"""SimCLR's loss (NT-Xent) of each example, among the rows of all ranks.

    .. math:: \ell_i = -\tfrac12 \sum_v \log \frac{e^{s(z_i^v, z_i^{v'}) / \tau}}
        {\sum_{k} e^{s(z_i^v, z_k) / \tau}}, \qquad s(a, b) = \frac{a^\top b}{\|a\| \|b\|}

    where k runs over all rows of both views but the row itself. In [0, log(2B - 1) + 2 / tau]; invariant to the norm
    of each row. O(B^2 D) with B examples on all ranks. Ranks may hold unequal numbers. The rows are gathered with
    gradient: a mean over all ranks' examples has the gradient of one process. Micro-batches are contrasted within
    themselves alone, which is another loss: use one.

    Source: Chen et al. 2020 (arXiv:2002.05709), eq. 1; the temperature 0.5 is theirs for CIFAR-10.

    Args:
        first: One view's rows.
        second: The other view's rows.
        temperature: tau.
        gather: Whether the rows of all ranks are contrasted, which all of them must then call for together; or this
            rank's alone.

    Returns:
        The loss of each example of this rank, the mean of its two views'.

    Raises:
        ValueError: If the views differ in shape, there are no rows, or the temperature is not positive.

    Example:
        >>> rows = torch.eye(2)
        >>> sim_clr(rows, rows)
        tensor([0.2395, 0.2395])
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(
            f"expected two views of the same examples, got shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    with torch.autocast(first.device.type, enabled=False):
        wide = torch.promote_types(first.dtype, torch.float32)
        count = len(first)
        own = functional.normalize(torch.cat([first, second]).to(wide), dim=1)
        everyone, start = _everyone(own) if gather else (own, 0)
        similar = own @ everyone.T / temperature
        places = torch.arange(2 * count, device=own.device)
        similar[places, start + places] = -torch.inf  # a row is not picked as its own partner
        partners = start + (places + count) % (2 * count)
        losses = functional.cross_entropy(similar, partners, reduction="none")
        return (losses[:count] + losses[count:]) / 2


def _everyone(own: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "m d"], int]:
    """The rows of all ranks, rank after rank, and the number of those before this rank's."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return own, 0
    world, rank = distributed.get_world_size(), distributed.get_rank()
    counts = torch.zeros(world, dtype=torch.int64, device=own.device)
    counts[rank] = len(own)
    distributed.all_reduce(counts)
    sizes = counts.tolist()
    gathered: Tensor = _Gather.apply(own, sizes, rank)
    return gathered, sum(sizes[:rank])


class _Gather(torch.autograd.Function):
    """The rows of all ranks; the gradient of each row is summed over the ranks that used it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        # A sum of what is zero elsewhere: unlike all_gather, it takes unequal numbers of rows.
        everyone = own.new_zeros(sum(sizes), own.shape[1])
        start = sum(sizes[:rank])
        everyone[start : start + sizes[rank]] = own
        distributed.all_reduce(everyone)
        return everyone

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        start = sum(ctx.sizes[: ctx.rank])
        return total[start : start + ctx.sizes[ctx.rank]], None, None
