"""What a loss of a two-player game is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """Both players' losses of each example, as functions of the discriminator's logits on real and fake examples.

    A logit is any real number; the more, the more real. Losses are computed in float32 or better.

    Example:
        >>> from lsdr.gan.losses import LOSSES
        >>> real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0])
        >>> {name: loss.discriminator(real, fake) for name, loss in LOSSES.items()}
        {'non_saturating': tensor([0.25, 1.39]), 'hinge': tensor([0., 2.]), 'relativistic': tensor([0.02, 0.69])}
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real logits (b,), fake logits (b,)) -> the discriminator's losses (b,)."""
    generator: Callable[[Tensor | None, Tensor], Tensor]
    """(real logits (b,), fake logits (b,)) -> the generator's losses (b,); None will do for the real logits
    where it is not relativistic."""
    relativistic: bool
    """Whether only differences of logits count, so that a single logit's sign means nothing."""


def paired(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Both players' logits in float32 or better, one each per example.

    Raises:
        ValueError: If they are not two vectors of one length: broadcasting would pair everything with everything.
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"expected one logit an example, real and fake of the same shape (b,), got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}"
        )
    return single(real), single(fake)


def single(fake: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """One player's logits in float32 or better.

    Raises:
        ValueError: If they are not a vector.
    """
    if fake.ndim != 1:
        raise ValueError(
            f"expected one logit an example, shape (b,), got {tuple(fake.shape)}; flatten a (b, 1) output, average a "
            "map of logits over its positions"
        )
    return fake.to(torch.promote_types(fake.dtype, torch.float32))
