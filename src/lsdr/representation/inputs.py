"""What an encoder takes: named tensors whose first dimension counts the examples."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]
"""All with leading dimension n. Images: "image" float32 (n, C, H, W) in [0, 1]. Texts: "tokens" int64 (n, L). Tables:
"numeric" float32 (n, p), "categorical" int64 (n, q), "missing" bool (n, p + q)."""

NO_INPUTS = ("index", "label")
"""What a batch holds beside its inputs."""


def rows(inputs: Inputs, index: Tensor | slice) -> dict[str, Tensor]:
    """Some examples of all of them.

    Args:
        inputs: Named tensors.
        index: Which ones: a slice, or a tensor of numbers or truth values.

    Example:
        >>> rows({"tokens": torch.arange(6).reshape(3, 2)}, slice(1, 3))["tokens"].tolist()
        [[2, 3], [4, 5]]
    """
    return {name: value[index] for name, value in inputs.items()}


def concatenate(parts: Sequence[Inputs]) -> dict[str, Tensor]:
    """The examples of all parts, one after another.

    Args:
        parts: One or more, with the same names.

    Raises:
        ValueError: If there is no part, or their names differ.

    Example:
        >>> one = {"tokens": torch.zeros(2, 3)}
        >>> concatenate([one, one])["tokens"].shape
        torch.Size([4, 3])
    """
    if not parts or any(set(part) != set(parts[0]) for part in parts):
        raise ValueError(f"expected parts with the same names, got {[sorted(part) for part in parts]}")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def count(inputs: Inputs) -> int:
    """How many examples there are.

    Example:
        >>> count({"tokens": torch.zeros(2, 3)})
        2
    """
    return len(next(iter(inputs.values())))
