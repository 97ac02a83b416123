"""Query, key, value and output of an attention layer of torch, diffusers, transformers or timm."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lsdr.layers.attention import Projections
from lsdr.layers.fused import fused_layout, split
from lsdr.layers.heads import attention_heads
from lsdr.layers.operators import is_conv1d, layer_operator
from lsdr.layers.tuners import is_adapted
from lsdr.layers.weight import read_weight

_NAMES = {
    "query": ("to_q", "q_proj", "query", "q_lin", "query_proj", "wq", "q", "q_attn"),
    "key": ("to_k", "k_proj", "key", "k_lin", "key_proj", "wk", "k"),
    "value": ("to_v", "v_proj", "value", "v_lin", "value_proj", "wv", "v"),
    "output": ("to_out", "o_proj", "out_proj", "out_lin", "wo", "o", "proj", "c_proj", "dense", "proj_attn"),
}
_FUSED = ("to_qkv", "to_kv", "qkv", "Wqkv", "qkv_proj", "query_key_value", "c_attn", "in_proj")
_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_NORMS = (("norm_q", "norm_k"), ("q_norm", "k_norm"), ("q_layernorm", "k_layernorm"), ("query_norm", "key_norm"))


def attention_projections(module: nn.Module) -> Projections:
    """The projections of an attention layer, whatever it calls and however it stores them.

    Understood are `nn.MultiheadAttention`, diffusers' `Attention` and its like (also fused, and with the added
    projections of joint attention), attention layers of transformers (split, or fused as `fused_layout` knows; GPT-2's
    transposed; grouped-query), and timm's with a `qkv`. Adapted projections are taken with their active adapters,
    which multiplies them out.

    Args:
        module: The attention layer itself, such as `block.attn1`, not the block that holds it.

    Returns:
        The matrices, as views of the weights where these are stored so.

    Raises:
        ValueError: If the layer's projections, their division or their number of heads cannot be told.

    Example:
        >>> attention_projections(nn.MultiheadAttention(8, 2)).key.shape
        torch.Size([8, 8])
    """
    if isinstance(module, nn.MultiheadAttention):
        return _multihead(module)
    config = _config(module)
    weights = {role: _weight(module, names) for role, names in _NAMES.items()}
    for leaf in _FUSED:
        layer = getattr(module, leaf, None)
        # A fused copy is what runs; the split layers beside it, which diffusers keeps, are stale.
        if isinstance(layer, nn.Module):
            weights.update(_split(leaf, layer, module, config, weights))
    query, key, value = weights["query"], weights["key"], weights["value"]
    added = _added(module) if isinstance(getattr(module, "add_k_proj", None), nn.Module) else None
    if query is None or (key is None and added is None):
        raise ValueError(
            f"{type(module).__name__} has no query and key projections under names known here "
            f"(children: {', '.join(name for name, _ in module.named_children()) or 'none'}): give the attention layer "
            "itself, or take the weights apart with lsdr.layers.attention.heads"
        )
    count, kv_heads, width = _count(module, config, query, key)
    rest = (count, kv_heads, width, _scale(module, width))
    return Projections(
        query,
        key,
        value,
        weights["output"],
        *rest,
        any(_is_norm(module, q) and _is_norm(module, k) for q, k in _NORMS),
        None if added is None else Projections(*added, *rest, _is_norm(module, "norm_added_k")),
    )


def _multihead(module: nn.MultiheadAttention) -> Projections:
    count, width = module.num_heads, module.head_dim
    if module._qkv_same_embed_dim:
        query, key, value = module.in_proj_weight.detach().chunk(3)
    else:
        parts = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        query, key, value = (part.detach() for part in parts)
    output = read_weight(module.out_proj)
    return Projections(query, key, value, output, count, count, width, 1 / math.sqrt(width))


def _added(module: nn.Module) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    query, key, value, output = (_weight(module, (name,)) for name in _ADDED)
    fused = getattr(module, "to_added_qkv", None)
    if isinstance(fused, nn.Module) and query is not None and key is not None and value is not None:
        query, key, value = _matrix(fused).split([len(query), len(key), len(value)])
    return query, key, value, output


def _weight(module: nn.Module, names: tuple[str, ...]) -> Tensor | None:
    for name in names:
        layer = getattr(module, name, None)
        if isinstance(layer, nn.ModuleList | nn.Sequential) and len(layer):
            layer = layer[0]
        if isinstance(layer, nn.Module) and (is_adapted(layer) or isinstance(getattr(layer, "weight", None), Tensor)):
            return _matrix(layer)
    return None


def _matrix(layer: nn.Module) -> Tensor:
    """Shape (out, in): the weight itself where it is stored so."""
    if is_adapted(layer):
        return layer_operator(layer).matrix()
    weight = read_weight(layer)
    return weight.mT if is_conv1d(layer) else weight.flatten(1)


def _split(
    leaf: str, layer: nn.Module, module: nn.Module, config: Mapping[str, Any], stale: Mapping[str, Tensor | None]
) -> dict[str, Tensor | None]:
    """The parts of a fused layer: as long as the split layers that it was made of, else as `fused_layout` says."""
    matrix = _matrix(layer)
    roles = ("key", "value") if leaf == "to_kv" else ("query", "key", "value")
    rows = [0 if (weight := stale[role]) is None else len(weight) for role in roles]
    if 0 not in rows and sum(rows) == len(matrix):
        return dict(zip(roles, matrix.split(rows), strict=True))
    count, width = _own_heads(module), _own_width(module)
    if width is not None and "head_dim" not in config:
        config = {**config, "head_dim": width}
    stored = tuple(matrix.mT.shape) if is_conv1d(layer) else tuple(matrix.shape)
    layout = fused_layout(f"attn.{leaf}.weight", stored, config, count)
    if layout is None or not layout.sections:
        reason = " is not known" if layout is None else f": {layout.reason}"
        raise ValueError(f"how {leaf} of shape {stored} is divided cannot be told{reason}")
    parts = split(matrix.mT if is_conv1d(layer) else matrix, layout)
    return {role: part for role, part in parts.items() if role in _NAMES}


def _config(module: nn.Module) -> Mapping[str, Any]:
    """The layer's configuration, with the model type: of layers that keep none, from where their class is defined."""
    config: Any = getattr(module, "config", None)
    found: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    if hasattr(config, "to_dict"):
        found = config.to_dict()
    home = re.match(r"transformers\.models\.(\w+)\.", type(module).__module__)
    return {"model_type": home[1], **found} if home else found


def _own_heads(module: nn.Module) -> int | None:
    names = ("heads", "num_heads", "num_attention_heads", "n_heads", "n_head")
    return next((value for name in names if isinstance(value := getattr(module, name, None), int)), None)


def _own_width(module: nn.Module) -> int | None:
    names = ("head_dim", "attention_head_size", "head_size", "dim_head", "key_value_proj_dim")
    return next((value for name in names if isinstance(value := getattr(module, name, None), int)), None)


def _count(module: nn.Module, config: Mapping[str, Any], query: Tensor, key: Tensor | None) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, width of a head: the layer's word before the configuration's."""
    known = attention_heads(config)
    count = _own_heads(module) or (known.heads if known is not None else None)
    width = _own_width(module) or (known.head_dim if known is not None else None)
    if count is None and width is not None and len(query) % width == 0:
        count = len(query) // width
    if count is None or len(query) % count:
        raise ValueError(
            f"{type(module).__name__} does not say into how many heads its query of {len(query)} rows divides "
            f"(it says {count})"
        )
    width = len(query) // count
    if key is None:
        return count, count, width
    if len(key) % width or count % (len(key) // width):
        raise ValueError(
            f"a key of {len(key)} rows does not divide into heads of {width} rows that serve {count} heads"
        )
    return count, len(key) // width, width


def _is_norm(module: nn.Module, name: str) -> bool:
    layer = getattr(module, name, None)
    return isinstance(layer, nn.Module) and not isinstance(layer, nn.Identity)


def _scale(module: nn.Module, width: int) -> float:
    for name in ("scale", "scaling"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    return 1.0 if hasattr(module, "has_relative_attention_bias") else 1 / math.sqrt(width)  # T5 scales nothing
