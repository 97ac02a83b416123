"""The matrices of an attention layer head by head, and the product of query and key."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lsdr.linalg.combine import Product, Scaled
from lsdr.linalg.dense import Dense
from lsdr.linalg.operator import Adjoint, LinearOperator


@dataclass(frozen=True, eq=False)
class Projections:
    """The projections of an attention layer, each of shape (out, in) whatever its storage; views where it has them.

    Attributes:
        query: Shape (heads * head_dim, width), None where the layer has none of its own.
        key: Shape (kv_heads * head_dim, context width).
        value: Shape (kv_heads * value_dim, context width).
        output: Shape (width, heads * value_dim), None where the layer has none.
        heads: Number of query heads.
        kv_heads: Number of heads of keys and values; each serves heads / kv_heads query heads.
        head_dim: Width of a query's or a key's head.
        scale: What the products of queries and keys are multiplied by, usually 1 / sqrt(head_dim).
        qk_norm: Whether queries and keys are normalised after the projection. The size of the query-key product is
            then without meaning: the logits do not depend on it, and their scale is in the gains of the norms. The
            shape of its spectrum still says which directions are matched.
        added: The projections of the other stream of a joint attention (text, in SD3 and Flux), which attends
            together with this one; the queries of each meet the keys of both.
    """

    query: Tensor | None
    key: Tensor | None
    value: Tensor | None
    output: Tensor | None
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    qk_norm: bool = False
    added: "Projections | None" = None

    def query_key(self) -> list[LinearOperator]:
        """The query-key products head by head, see `query_key`.

        Raises:
            ValueError: If the layer has no query or no key.
        """
        if self.query is None or self.key is None:
            raise ValueError("the layer has no query or no key projection of its own, so no product of the two")
        return query_key(self.query, self.key, self.heads, self.kv_heads, scale=self.scale)


def heads(weight: Tensor, count: int, side: Literal["output", "input"] = "output") -> list[Tensor]:
    """The heads of a projection, as views: rows of query, key and value, columns of the output projection.

    Args:
        weight: Shape (out, in).
        count: Number of heads: of keys and values the number of those heads, which can be smaller.
        side: On which side the heads are: "output" for query, key and value, "input" for the output projection.

    Returns:
        One view a head, in order.

    Raises:
        ValueError: If the weight does not divide into so many heads.

    Example:
        >>> import torch
        >>> [head.shape for head in heads(torch.zeros(6, 4), 2)]
        [torch.Size([3, 4]), torch.Size([3, 4])]
    """
    if side not in ("output", "input"):
        raise ValueError(f"side must be 'output' or 'input', got {side!r}")
    axis = 0 if side == "output" else 1
    if weight.ndim != 2 or count < 1 or weight.shape[axis] % count:
        raise ValueError(
            f"a weight of shape {tuple(weight.shape)} does not divide into {count} heads on its {side} side: check the "
            "number of heads, and whether the weight is fused (lsdr.layers.fused) or stored transposed"
        )
    return list(weight.split(weight.shape[axis] // count, axis))


def query_key(
    q: Tensor,
    k: Tensor,
    count: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    scale: bool | float = True,
) -> list[LinearOperator]:
    r"""The bilinear forms of attention logits, one operator a head, never multiplied out.

    .. math:: \ell_h(x, y) = x^\top A_h\, y, \quad A_h = s\, W_{q,h}^\top W_{k,h'}, \quad s = 1 / \sqrt{d}

    The largest singular value of A_h bounds the logits of inputs of unit norm. Biases are left out, and so is a
    rotary embedding: with one this is the form at distance zero. Exact values cost two QR decompositions of the thin
    factors and an SVD of head_dim x head_dim (`exact_singular_values`). Invariant to an invertible map between the
    two, W_q -> M W_q and W_k -> M^{-T} W_k, which the spectra of W_q and W_k are not.

    Source: the analysis of attention logits of Zhai et al., 2023 (arXiv:2303.06296), section 3, head by head.

    Args:
        q: Query weight, shape (count * d, width).
        k: Key weight, shape (kv_heads * d, context width).
        count: Number of query heads.
        kv_heads: Number of key heads, if fewer (grouped or multi-query attention).
        head_dim: Width d of a head, checked if given.
        scale: True for 1 / sqrt(d), False for 1, or the factor.

    Returns:
        Operators of shape (width, context width) and rank of at most d, one for each query head.

    Raises:
        ValueError: If the shapes do not divide into heads of the same width.

    Example:
        >>> import torch
        >>> query_key(torch.eye(4), torch.eye(4), 2, scale=False)[1].matrix().diagonal()
        tensor([0., 0., 1., 1.])
    """
    kv_heads = count if kv_heads is None else kv_heads
    queries, keys = heads(q, count), heads(k, kv_heads)
    width = len(queries[0])
    if count % kv_heads or len(keys[0]) != width or (head_dim is not None and head_dim != width):
        raise ValueError(
            f"{count} query heads of width {width} and {kv_heads} key heads of width {len(keys[0])} do not go "
            f"together{'' if head_dim is None else f' with heads of width {head_dim}'}: the widths must be equal and "
            "the number of query heads a multiple of that of the key heads"
        )
    factor = 1 / math.sqrt(width) if scale is True else float(scale) if scale is not False else 1.0
    shared = count // kv_heads
    return [
        Scaled(Product(Adjoint(Dense(query)), Dense(keys[head // shared])), factor)
        for head, query in enumerate(queries)
    ]
