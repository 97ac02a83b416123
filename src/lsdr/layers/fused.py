"""Projections stored as one matrix: how query, key and value lie in it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lsdr.layers.heads import AttentionHeads, attention_heads

_QKV = ("query", "key", "value")
# Model types of transformers whose fused rows go head by head: (q, k, v) of the first head, then of the second.
_BY_HEAD = ("gpt_neox", "gpt_neox_japanese", "bloom", "persimmon", "minimax", "deberta")
_BY_PART = ("phi3", "phi4_multimodal", "phimoe", "chatglm", "mpt", "modernbert", "dbrx")
_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


@dataclass(frozen=True)
class FusedLayout:
    """How the rows of a fused projection are divided.

    Attributes:
        sections: Name and number of rows of each part in the order stored; empty if that cannot be known.
        repeats: How often the sections follow one another: 1, or the number of heads if they go head by head.
        transposed: Whether the matrix is stored as (in, out), so that the sections are columns.
        reason: Why the sections cannot be known; empty if they are.
    """

    sections: tuple[tuple[str, int], ...]
    repeats: int = 1
    transposed: bool = False
    reason: str = ""


def fused_layout(
    name: str, shape: Sequence[int], config: Mapping[str, Any] | None = None, heads: int | None = None
) -> FusedLayout | None:
    """How a fused projection of a state dict is divided, or why that cannot be known; None if it is not fused.

    Names known: `in_proj_weight`, `qkv` (also `img_attn.qkv`, `attn.qkv`, `img_attn_qkv`), `to_qkv`, `to_kv`,
    `to_added_qkv`, `to_qkv_mlp_proj`, `kv`, `kv_linear`, `c_attn`, `query_key_value`, `Wqkv`, `qkv_proj`, and `linear1`
    of Flux's single blocks (query, key, value and the MLP's input). Nothing is guessed: thirds are taken only where
    the output is three times the input or the configuration says so, and the order of `query_key_value`, which
    differs between model families, only from the configuration's `model_type`.

    Args:
        name: Name of the entry.
        shape: Its shape.
        config: The model's configuration (diffusers or transformers), if there is one.
        heads: Number of heads, if known otherwise.

    Example:
        >>> fused_layout("blocks.0.attn.qkv.weight", (192, 64)).sections
        (('query', 64), ('key', 64), ('value', 64))
        >>> fused_layout("layers.0.attention.query_key_value.weight", (192, 64)).reason[:34]
        'query_key_value is stored in parts'
    """
    if len(shape) < 2:
        return None
    path = re.sub(r"(\.weight|_weight)$", "", name).split(".")
    leaf = path[-1]
    config = config or {}
    model = str(config.get("model_type", ""))
    rows, columns = shape[0], shape[1]
    known = attention_heads(config, heads)
    if leaf in ("to_kv", "kv", "kv_linear") and not rows % 2:
        return FusedLayout((("key", rows // 2), ("value", rows // 2)))
    if leaf == "c_attn":
        return _c_attn(rows, columns, model, known)
    if leaf == "query_key_value":
        return _query_key_value(name, rows, columns, model, config, known)
    if (leaf == "linear1" and "single_blocks" in path) or leaf == "to_qkv_mlp_proj":
        if rows > 3 * columns:
            return FusedLayout((*((part, columns) for part in _QKV), ("mlp", rows - 3 * columns)))
        return FusedLayout((), reason=f"{rows} rows are too few for query, key, value and MLP of {columns} rows each")
    if leaf == "in_proj" and (name.endswith("in_proj_weight") or model == "deberta"):
        return _by_head(rows, known, leaf) if model == "deberta" else _thirds(rows, columns, known, leaf)
    if leaf == "qkv_proj":
        if (
            model == "codegen" and not rows % 12
        ):  # four blocks of rows for four devices, each holding query, value and key
            return FusedLayout(tuple((part, rows // 12) for part in ("query", "value", "key")), 4)
        if model in _BY_HEAD:
            return _by_head(rows, known, leaf)
        if model:
            return _thirds(rows, columns, known, leaf)
        return FusedLayout(
            (), reason="qkv_proj is stored in parts, head by head or in blocks: the model_type says which"
        )
    if leaf in ("qkv", "to_qkv", "to_added_qkv", "Wqkv") or re.fullmatch(r"(img|txt|x|c)_attn_qkv|attn_qkv", leaf):
        if len(shape) == 3 and leaf == "qkv":
            reason = "a qkv convolution is stored in parts or head by head (both orders of guided-diffusion's code)"
            return FusedLayout((), reason=reason)
        return _thirds(rows, columns, known, leaf)
    return None


def split_fused(
    name: str, weight: Tensor, config: Mapping[str, Any] | None = None, heads: int | None = None
) -> dict[str, Tensor] | None:
    """The parts of a fused projection, each of shape (out, in); None if it is not fused or its parts are not known.

    Parts stored one after the other are views. Parts that go head by head are copies, heads in order.

    Args:
        name: Name of the entry; see `fused_layout`, which says why where the answer is None.
        weight: The entry.
        config: The model's configuration, if there is one.
        heads: Number of heads, if known otherwise.

    Returns:
        "query", "key", "value" and "mlp" as far as they are there.

    Example:
        >>> import torch
        >>> list(split_fused("attn.to_kv.weight", torch.zeros(8, 4)))
        ['key', 'value']
    """
    layout = fused_layout(name, tuple(weight.shape), config, heads)
    return None if layout is None or not layout.sections else split(weight, layout)


def split(weight: Tensor, layout: FusedLayout) -> dict[str, Tensor]:
    """The parts of a fused projection whose layout is known; see `split_fused`."""
    matrix = weight.mT if layout.transposed else weight.flatten(1)
    parts: dict[str, Tensor] = {}
    start, period = 0, sum(rows for _, rows in layout.sections)
    for part, rows in layout.sections:
        if layout.repeats == 1:
            parts[part] = matrix.narrow(0, start, rows)
        else:
            by_head = matrix.unflatten(0, (layout.repeats, period))
            parts[part] = by_head.narrow(1, start, rows).flatten(0, 1)
        start += rows
    return parts


def _thirds(rows: int, columns: int, known: AttentionHeads | None, leaf: str) -> FusedLayout:
    """Query, key and value one after the other."""
    if known is not None and known.head_dim is not None:
        query, key = known.heads * known.head_dim, known.kv_heads * known.head_dim
        if query + 2 * key == rows:
            return FusedLayout((("query", query), ("key", key), ("value", key)))
    if rows == 3 * columns and (known is None or known.kv_heads == known.heads):
        return FusedLayout(tuple((part, columns) for part in _QKV))
    reason = f"{leaf} of {rows} rows and {columns} columns is not three times its input"
    if known is None:
        return FusedLayout((), reason=f"{reason}: the parts may be unequal, and no configuration says how")
    return FusedLayout((), reason=f"{reason}, and the configuration's {known} does not add up to it")


def _by_head(rows: int, known: AttentionHeads | None, leaf: str) -> FusedLayout:
    """(q, k, v) of the first head, of the second, ..."""
    if known is None or rows % (3 * known.heads):
        return FusedLayout((), reason=f"{leaf} is stored head by head, and the number of heads is not known")
    return FusedLayout(tuple((part, rows // (3 * known.heads)) for part in _QKV), known.heads)


def _c_attn(rows: int, columns: int, model: str, known: AttentionHeads | None) -> FusedLayout:
    """GPT-2 stores (in, out), code after it (out, in)."""
    if model == "gpt_bigcode":
        if known is not None and known.kv_heads == 1 and known.head_dim is not None:
            sections = (("query", known.heads * known.head_dim), ("key", known.head_dim), ("value", known.head_dim))
            if sum(each for _, each in sections) == rows:
                return FusedLayout(sections)
        return _by_head(rows, known, "c_attn")
    transposed = columns > rows
    out, width = (columns, rows) if transposed else (rows, columns)
    if (model in _TRANSPOSED and not transposed) or not width or out % width or out // width not in (2, 3):
        return FusedLayout((), transposed=transposed, reason=f"c_attn of shape ({rows}, {columns}) is of unknown parts")
    parts = _QKV[1:] if out // width == 2 else _QKV  # cross-attention has its query elsewhere
    return FusedLayout(tuple((part, width) for part in parts), transposed=transposed)


def _query_key_value(
    name: str, rows: int, columns: int, model: str, config: Mapping[str, Any], known: AttentionHeads | None
) -> FusedLayout:
    if model in _BY_HEAD or (not model and "gpt_neox." in name):
        return _by_head(rows, known, "query_key_value")
    if model == "falcon" and known is not None:
        if not config.get("new_decoder_architecture") and not config.get("multi_query", True):
            return _by_head(rows, known, "query_key_value")
        groups = known.kv_heads
        width = columns // known.heads
        sections = (("query", known.heads // groups * width), ("key", width), ("value", width))
        if groups * sum(each for _, each in sections) == rows:
            return FusedLayout(sections, groups)
    if model in _BY_PART:
        return _thirds(rows, columns, known, "query_key_value")
    reason = "query_key_value is stored in parts by some models and head by head by others: "
    return FusedLayout(
        (), reason=reason + (f"model_type {model!r} is not known" if model else "no model_type says which")
    )
