"""One step of a view: what is drawn for each example, and what is done with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lsdr.representation.inputs import Inputs

Draws = Mapping[str, Tensor]


@dataclass(frozen=True)
class Step:
    """Some inputs of each example changed, whatever other examples there are.

    Everything random, and every function whose last bit may depend on where in memory a number lies (powers,
    exponentials, sines, sums), is for `draw`, which sees the whole batch once. `apply` may be given any part of it, so
    it does nothing to numbers but what is exact to the bit however a batch is cut: arithmetic, look-ups, resampling.

    Attributes:
        draw: Of a number of examples and a generator: tensors with one row an example, on the generator's device.
        apply: The inputs changed, given the draws on their device.
    """

    draw: Callable[[int, torch.Generator], dict[str, Tensor]]
    apply: Callable[[Inputs, Draws], dict[str, Tensor]]


def uniform(count: int, generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers in [0, 1), shape (count, *shape), on the generator's device."""
    return torch.rand(count, *shape, generator=generator, device=generator.device)


def amount(count: int, generator: torch.Generator, exact: bool) -> Tensor:
    """How much of a strength each example gets: any share of it, or exactly all of it. Shape (count,)."""
    share = uniform(count, generator)
    return torch.ones_like(share) if exact else share


def signed(count: int, generator: torch.Generator, exact: bool, *shape: int) -> Tensor:
    """How much of a strength each example gets, either way: in [-1, 1), or exactly -1 or 1. (count, *shape)."""
    share = 2 * uniform(count, generator, *shape) - 1
    return torch.where(share < 0, -1.0, 1.0) if exact else share


def keys(count: int, generator: torch.Generator) -> Tensor:
    """A seed of its own for each example, in [0, 2^62). Shape (count,)."""
    return torch.randint(2**62, (count,), generator=generator, device=generator.device)


def spare_one(chosen: Tensor, present: Tensor, order: Tensor) -> Tensor:
    """Choose all but one where everything that is present was chosen, so that something of each row is left.

    Args:
        chosen: Bool (n, L).
        present: What can be chosen, bool (n, L).
        order: Any numbers from 0 up (n, L); what is present with the largest is spared.
    """
    chosen = chosen & present
    all_chosen = (chosen == present).all(1, keepdim=True)
    last = torch.where(present, order, -1.0).argmax(1, keepdim=True)
    spared = torch.zeros_like(chosen).scatter(1, last, True)
    return chosen & ~(all_chosen & spared)
