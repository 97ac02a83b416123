"""An attention layer head by head, from a state dict."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from lsdr.layers.attention import heads, query_key
from lsdr.layers.fused import split_fused
from lsdr.layers.heads import attention_role, head_count
from lsdr.layers.layout import LayerFacts
from lsdr.linalg.exact import exact_singular_values
from lsdr.linalg.singular_values import singular_values

_PAIRS = {
    "to_q": "to_k",
    "add_q_proj": "add_k_proj",
    "q_proj": "k_proj",
    "query_proj": "key_proj",
    "query": "key",
    "q_lin": "k_lin",
    "linear_q": "linear_k",
    "wq": "wk",
    "q": "k",
}
_NORMS = re.compile(
    r"(.+?)\.(norm\.query_norm|norm_q|q_norm|query_norm|norm_added_q|q_layernorm|query_layernorm)(\.|$)"
)


def key_of(name: str, names: Collection[str]) -> str | None:
    """The key projection that belongs to a query projection of a state dict; None if there is none.

    Example:
        >>> key_of("attn1.to_q.weight", ["attn1.to_q.weight", "attn1.to_k.weight"])
        'attn1.to_k.weight'
    """
    path = name.split(".")
    for place in range(len(path) - 1, max(len(path) - 3, -1), -1):
        if path[place] in _PAIRS:
            key = ".".join([*path[:place], _PAIRS[path[place]], *path[place + 1 :]])
            return key if key in names else None
    return None


def normalised(names: Collection[str]) -> frozenset[str]:
    """The attention layers that normalise their queries or keys, by their own names: entries beside the rest say so.

    Example:
        >>> normalised(["attn.norm_q.weight", "attn.to_q.weight", "other.to_q.weight"])
        frozenset({'attn'})
    """
    return frozenset(match[1] for name in names if (match := _NORMS.match(name)))


def head_rows(
    name: str,
    weight: Tensor,
    facts: LayerFacts,
    config: Mapping[str, Any] | None = None,
    of_key: tuple[str, Tensor] | None = None,
) -> list[dict[str, Any]] | None:
    """Query and key of each head, and their product; None where this is no query or nobody says how many heads it has.

    Args:
        name: Name of the entry.
        weight: The entry: a query projection, or a fused one.
        facts: What it is.
        config: Configuration of the model.
        of_key: Name and weight of the key projection that belongs to it; None if there is none.

    Returns:
        For each head its number, "q_sigma", "k_sigma" (of the key head that serves it) and "qk_sigma", the spectral
        norm of the logits' bilinear form, scaled by 1 / sqrt(head_dim).
    """
    role, count = attention_role(name), facts.heads
    if role not in ("query", "fused") or count is None:
        return None
    if role == "fused":
        parts = split_fused(name, weight, config, count) or {}
        query, key = parts.get("query"), parts.get("key")
        key_count = count if query is None or key is None else max(key.shape[0] // max(query.shape[0] // count, 1), 1)
    else:
        query, key, key_count = weight.mT if facts.transposed else weight.flatten(1), None, count
        if of_key is not None:
            key_name, stored = of_key
            key, key_count = stored.flatten(1), head_count(key_name, config, tuple(stored.shape)) or count
    if query is None or key is None or query.shape[0] % count or key.shape[0] % key_count or count % key_count:
        return None
    if not all(bool(each.float().isfinite().all()) for each in (query, key)):
        return None
    queries, keys = heads(query, count), heads(key, key_count)
    if queries[0].shape[0] != keys[0].shape[0]:
        return None
    products = query_key(query, key, count, key_count)
    of_keys = [float(singular_values(each, "float32").values[0]) for each in keys]
    return [
        {
            "head": head,
            "q_sigma": float(singular_values(queries[head], "float32").values[0]),
            "k_sigma": of_keys[head * key_count // count],
            "qk_sigma": float(exact_singular_values(products[head], "float32").values[0]),
        }
        for head in range(count)
    ]
