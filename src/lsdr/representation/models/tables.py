"""A residual network for the rows of a table: numbers, categories, missing values."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TableBackbone(nn.Module):
    r"""Numbers, embedded categories and what is missing, through residual blocks with layer normalisation.

    .. math:: x_0 = W [z, e(c), m], \quad x_{k+1} = x_k + B_k\, \sigma(A_k \operatorname{LN}(x_k))

    Source: Gorishniy et al. 2021 (arXiv:2106.11959), section 3.2, with layer for batch normalisation.

    Args:
        numeric: Columns of numbers.
        cardinalities: Of each categorical column, how many codes there are.
        width: Of the residual stream.
        depth: Residual blocks.
        code: F, dimensions of the code.
        embedding: Dimensions of an embedded category; fewer where a column has fewer levels.

    Example:
        >>> backbone = TableBackbone(2, [3], width=16, depth=1, code=8)
        >>> missing = torch.zeros(4, 3, dtype=torch.bool)
        >>> categories = torch.ones(4, 1, dtype=torch.int64)
        >>> backbone({"numeric": torch.zeros(4, 2), "categorical": categories, "missing": missing}).shape
        torch.Size([4, 8])
    """

    def __init__(
        self, numeric: int, cardinalities: Sequence[int], *, width: int, depth: int, code: int, embedding: int = 16
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "numeric": numeric,
            "cardinalities": list(cardinalities),
            "width": width,
            "depth": depth,
            "code": code,
            "embedding": embedding,
        }
        self.width = code
        self.embeddings = nn.ModuleList(nn.Embedding(levels, min(embedding, levels)) for levels in cardinalities)
        known = numeric + sum(min(embedding, levels) for levels in cardinalities)
        self.stem = nn.Linear(known + numeric + len(cardinalities), width)
        self.stages = nn.Sequential(*[_Block(width) for _ in range(depth)])
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, code))

    @property
    def blocks(self) -> tuple[str, ...]:
        """The residual blocks' names, in order."""
        return tuple(f"stages.{k}" for k in range(len(self.stages)))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Codes, shape (n, F).

        Args:
            inputs: "numeric" (n, p), "categorical" int64 (n, q), "missing" bool (n, p + q).
        """
        kind = self.stem.weight.dtype
        parts = [inputs["numeric"].to(kind)]
        parts += [embed(inputs["categorical"][:, place]) for place, embed in enumerate(self.embeddings)]
        codes: Tensor = self.last(self.stages(self.stem(torch.cat([*parts, inputs["missing"].to(kind)], 1))))
        return codes


class _Block(nn.Module):
    """x + f(x), with f two layers after a normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.inside(x)
        return x + inside
