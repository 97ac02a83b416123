"""How many heads a projection has, from its name and the model's configuration."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["query", "key", "value", "output", "fused"]

_ROLES: dict[Role, str] = {
    "query": r"to_q|(add_)?q_proj|q_attn|query|query_proj|q_lin|linear_q|wq|q",
    "key": r"to_k|(add_)?k_proj|key|key_proj|k_lin|linear_k|wk|k",
    "value": r"to_v|(add_)?v_proj|value|value_proj|v_lin|linear_v|wv|v",
    "output": r"to_out|to_add_out|out_proj|o_proj|out_lin|proj_attn|proj_out|proj|dense|c_proj|wo|o",
    "fused": r"to_qkv|to_kv|to_added_qkv|c_attn|query_key_value|Wqkv|qkv_proj|qkv|kv|kv_linear|in_proj|\w+_attn_qkv",
}
_PLAIN = r"to_(q|k|v|out|add_out|qkv|kv|added_qkv)|add_[qkv]_proj"  # names that only attention has
_ATTENTION = re.compile(r"attn|attention|\.mixer\.", re.IGNORECASE)
_COUNTS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
_KEY_VALUE = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads", "kv_heads")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")


@dataclass(frozen=True)
class AttentionHeads:
    """Heads of an attention layer: of queries, of keys and values, and their width if the configuration says it."""

    heads: int
    kv_heads: int
    head_dim: int | None


def attention_role(name: str) -> Role | None:
    """Which projection of an attention layer a state dict's entry is, by its name; None if it is none of them.

    Example:
        >>> [attention_role(f"{name}.weight") for name in ("attn1.to_out.0", "attention.output.dense", "mlp.c_proj")]
        ['output', 'output', None]
    """
    path = _path(name)
    leaf = path[-1]
    inside = ".".join(path[:-1])
    if not re.fullmatch(_PLAIN, leaf) and not _ATTENTION.search(f".{inside}.") and leaf not in ("in_proj", "qkv"):
        return None
    if leaf == "in_proj" and not name.endswith("in_proj_weight") and not _ATTENTION.search(inside):
        return None
    return next((role for role, pattern in _ROLES.items() if re.fullmatch(pattern, leaf)), None)


def attention_heads(config: Mapping[str, Any] | None, heads: int | None = None) -> AttentionHeads | None:
    """The heads that a configuration gives to all attention layers alike; None if it does not.

    Args:
        config: Configuration of a diffusers transformer or a transformers model.
        heads: Number of heads, if known otherwise.

    Example:
        >>> attention_heads({"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2})
        AttentionHeads(heads=8, kv_heads=2, head_dim=8)
    """
    config = config or {}
    nested = config.get("attn_config")
    config = {**nested, **config} if isinstance(nested, Mapping) else config
    count = _first(config, _COUNTS) if heads is None else heads
    if count is None:
        return None
    kv_heads = _first(config, _KEY_VALUE)
    if config.get("multi_query_attention"):
        kv_heads = _first(config, ("multi_query_group_num",))
    elif config.get("model_type") in ("falcon", "gpt_bigcode") and not config.get("new_decoder_architecture"):
        kv_heads = 1 if config.get("multi_query", True) else count
    head_dim = _first(config, ("head_dim", "attention_head_dim", "kv_channels", "d_kv"))
    width = _first(config, _WIDTHS)
    if head_dim is None and width is not None and width % count == 0:
        head_dim = width // count
    return AttentionHeads(count, kv_heads or count, head_dim)


def head_count(name: str, config: Mapping[str, Any] | None, shape: Sequence[int] = ()) -> int | None:
    """Number of heads of an attention projection, None if it is none or nobody says.

    Of keys and values it is the number of their own heads, which is smaller under grouped-query attention; of a fused
    projection that of the queries.

    In configurations of diffusers' conditional U-Nets `attention_head_dim` is the *number* of heads, one for all
    blocks or one for each (a misnomer that diffusers keeps for the sake of existing files); in those of
    `UNet2DModel`, and for blocks other than `CrossAttn*`, it is what it says, and the number needs the shape.

    Args:
        name: Name of the entry.
        config: Configuration of the model whose entry it is.
        shape: Shape of the entry as (out, in), to divide where the configuration gives the width of a head, and to
            check: a number that does not divide it is no answer.

    Example:
        >>> sd15 = {"attention_head_dim": 8, "down_block_types": ["CrossAttnDownBlock2D"]}
        >>> head_count("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", sd15)
        8
    """
    role = attention_role(name)
    count = None if role is None or not config else _count(name, role, config, shape)
    width = None if role is None else _columns(role, shape)
    return count if count is None or width is None or width % count == 0 else None


def _count(name: str, role: Role, config: Mapping[str, Any], shape: Sequence[int]) -> int | None:
    if "latent_channels" in config:
        return 1  # an autoencoder: one head of all channels
    if "down_block_types" in config:
        return _unet(name, config, _columns(role, shape))
    if "attn2" in name and "num_cross_attention_heads" in config:
        return _first(config, ("num_cross_attention_heads",))
    config = _part(name, config)
    side = re.search(r"(?:^|\.)(encoder|decoder)\.", name)
    own = _first(config, (f"{side[1]}_attention_heads",)) if side else None
    known = attention_heads(config, own)
    if known is None:
        return None
    return known.kv_heads if role in ("key", "value") else known.heads


def _unet(name: str, config: Mapping[str, Any], channels: int | None) -> int | None:
    if "motion_modules" in name:
        return _first(config, ("motion_num_attention_heads",))
    place = re.search(r"(?:^|\.)(down|mid|up)_blocks?(?:\.(\d+))?", name)
    downs = config["down_block_types"]
    if place is None or not isinstance(downs, Sequence):
        return None
    where, index = place[1], int(place[2] or 0)
    # Up blocks mirror the down blocks, the middle is at the depth of the last.
    level = {"down": index, "mid": len(downs) - 1, "up": len(downs) - 1 - index}[where]
    if where == "mid":
        conditional = "cross_attention_dim" in config
        block: Any = config.get("mid_block_type") or ("UNetMidBlock2DCrossAttn" if conditional else "UNetMidBlock2D")
    else:
        blocks = config.get(f"{where}_block_types")
        if not isinstance(blocks, Sequence) or index >= len(blocks):
            return None
        block = blocks[index]
    block = str(block)
    if "CrossAttn" in block and "Simple" not in block:
        value = config.get("num_attention_heads") or config.get("attention_head_dim")
        return _at(value, level)
    width = _at(config.get("attention_head_dim"), level)
    if width is None:
        return 1  # one head of all channels
    return channels // width if channels is not None and channels % width == 0 else None


def _at(value: Any, level: int) -> int | None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[level] if 0 <= level < len(value) else None
    return value if isinstance(value, int) and value > 0 else None


def _columns(role: Role, shape: Sequence[int]) -> int | None:
    """The width of all heads together, of an entry of this shape."""
    if len(shape) < 2 or role == "fused":
        return None
    return shape[1] if role == "output" else shape[0]


def _part(name: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a nested configuration (CLIP's two towers) that an entry belongs to."""
    tower = "vision" if re.search(r"vision|visual", name) else "text"
    nested = config.get(f"{tower}_config")
    return nested if isinstance(nested, Mapping) and _first(config, _COUNTS) is None else config


def _first(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int) and config[key] > 0), None)


def _path(name: str) -> list[str]:
    """Components of a name, without those that say which parameter of the layer it is, or which part of a list."""
    path = re.sub(r"(\.parametrizations\.weight\.\w+|\.weight|_weight|\.bias|_bias)$", "", name).split(".")
    return path[:-1] if len(path) > 1 and path[-1].isdigit() else path
