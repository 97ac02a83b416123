"""Gaussian noise for large images out of one number an example: the same whichever examples are asked for together."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORD = 0xFFFFFFFF


def normal(key: Int[Tensor, "n"], size: int) -> Float[Tensor, "n size"]:
    """Numbers of a standard normal distribution, a row for each key.

    A field of noise is large, and a step's draws are made for all ranks: so a step draws a key for each example, and
    whoever has the example computes its noise, pixel by pixel, by hashing (key, pixel). 16 bits of hash pick one of
    65536 equally likely quantiles, so no number is above 4.4 and the variance is 1 to 1e-4; arithmetic with whole
    numbers and a look-up are exact on every device and in batches of every size.

    Source: the hash is a 32-bit multiply-xorshift of C. Wellons, "Prospecting for Hash Functions" (2018),
    16-21f0aaad-15-735a2d97-15, here twice, with the hash of a half of the key before each.

    Args:
        key: Seeds in [0, 2^62).
        size: Numbers of a row.

    Example:
        >>> normal(torch.tensor([3, 5]), 4)[1].equal(normal(torch.tensor([5]), 4)[0])
        True
    """
    pairs = torch.arange((size + 1) // 2, device=key.device)
    low, high = _hash(key[:, None] & _WORD), _hash(key[:, None] >> 32)
    words = _hash(_hash((pairs + low) & _WORD) ^ high)
    halves = torch.stack([words & 0xFFFF, words >> 16], 2).flatten(1)[:, :size]
    noise: Tensor = _quantiles(key.device)[halves]
    return noise


def _hash(word: Tensor) -> Tensor:
    """Mix words of 32 bits, held in int64: no product reaches 2^63."""
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & _WORD
    word = ((word ^ (word >> 15)) * 0x735A2D97) & _WORD
    return word ^ (word >> 15)


@lru_cache(maxsize=8)
def _quantiles(device: torch.device) -> Tensor:
    probabilities = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
    quantiles: Tensor = torch.special.ndtri(probabilities)
    return quantiles.to(device, torch.float32)
