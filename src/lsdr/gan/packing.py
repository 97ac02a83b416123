"""Packing: the discriminator judges several examples together."""

from jaxtyping import Shaped
from torch import Tensor


def pack(x: Shaped[Tensor, "b c *dims"], size: int) -> Shaped[Tensor, "packs channels *dims"]:
    r"""Put each `size` consecutive examples behind one another along dimension 1: one input of the discriminator.

    A generator that lacks modes shows it in a pack far more clearly than in single examples: the total variation
    between packs of real and of generated examples grows with the pack, the faster the stronger the collapse. All of a
    pack are real, or all are generated.

    Source: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 2.

    Args:
        x: Examples, shape (b, c, ...), b divisible by `size`.
        size: Examples in a pack, m; 1 leaves x as it is.

    Returns:
        Packs, shape (b / m, m c, ...): channels of the first example, then those of the second, and so on.

    Raises:
        ValueError: If b is not divisible by the size, or x has no dimension 1.

    Example:
        >>> import torch
        >>> pack(torch.arange(8).view(4, 2), 2)
        tensor([[0, 1, 2, 3],
                [4, 5, 6, 7]])
    """
    if size < 1 or len(x) % size:
        raise ValueError(
            f"{len(x)} examples cannot be put into packs of {size}; use a batch size (of a micro-batch, of a "
            "rank) that is a multiple"
        )
    return x.reshape(len(x) // size, size * x.shape[1], *x.shape[2:])
