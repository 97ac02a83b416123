"""Adapters of layers: LoRA, LoHa, LoKr and full differences, as operators and never multiplied out."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsdr.layers.checkpoint.adapter_keys import COMPLETE, group_names
from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.linalg.dense import Dense
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import LinearOperator

_REPEATED, _MOST_REPEATS = re.compile(r"[*+{]"), 4
_NESTED = re.compile(r"\)[*+{?]")


@dataclass(frozen=True)
class Adapter:
    """What is added to one layer's weight.

    Attributes:
        kind: "lora", "loha", "lokr" or "full".
        operator: The difference, scaled, of the shape of the base weight flattened after its first dimension.
        rank: The rank that was trained; None where nothing was factored.
        alpha: As stored or configured; None where there is none.
        scale: What the product of the factors is multiplied by, alpha / rank; 1 without an alpha.
        tensors: Names of its tensors.
        dora: Whether a magnitude is stored too: then base and difference are normalised together, and `operator` is
            not the whole difference.
        transposed: Whether the base weight is stored as (inputs, outputs), so that the adjoint is added to it.
    """

    kind: str
    operator: LinearOperator
    rank: int | None
    alpha: float | None
    scale: float
    tensors: tuple[str, ...]
    dora: bool = False
    transposed: bool = False


def read_adapters(checkpoint: Checkpoint) -> dict[str, Adapter]:
    r"""Read the adapters of a checkpoint.

    Known are the names of kohya, LyCORIS, peft and diffusers. The differences are

    .. math:: \Delta W = s\, B A, \quad s\, (B_1 A_1) \circ (B_2 A_2), \quad s\, W_1 \otimes W_2

    for LoRA (Hu et al. 2021, equation 3), LoHa (FedPara, Hyeon-Woo et al. 2022, equation 1) and LoKr (Yeh et al. 2024,
    LyCORIS), with s = alpha / r, or alpha / sqrt(r) where peft's `use_rslora` says so. A core tensor (`lora_mid`,
    `hada_t1`, `lokr_t2`) holds the taps of a convolution between its factors. An alpha of 0 counts as none, as the
    trainers have it. LoKr with two whole factors has scale 1 in LyCORIS and alpha / r in peft.

    Args:
        checkpoint: A checkpoint that is open; entries that are of no adapter are named in its notes.

    Returns:
        The adapters by target layer, the target as the file has it: "lora_unet_mid_block_attentions_0_proj_in",
        "unet.mid_block.attentions.0.proj_in". See `match_base`. Empty if there are none.

    Raises:
        ValueError: If an adapter is incomplete or its tensors do not fit together.
    """
    groups = group_names(checkpoint.entries)
    adapters: dict[str, Adapter] = {}
    used: set[str] = set()
    for target, roles in groups.items():
        if "adalora" in roles:
            continue
        adapters[target] = _read(checkpoint, target, roles)
        used.update(roles.values())
    others = [name for name in checkpoint.entries if name not in used]
    if adapters and others:
        checkpoint.notes.append(
            f"{len(others)} entries belong to no adapter of a known kind: {', '.join(others[:3])}"
            f"{' ...' if len(others) > 3 else ''}"
        )
    if adapters and all(each.alpha is None and each.kind != "full" for each in adapters.values()):
        checkpoint.notes.append("no alpha is stored and there is no adapter_config.json: scales are taken as 1")
    return adapters


def _read(checkpoint: Checkpoint, target: str, roles: dict[str, str]) -> Adapter:
    complete = [kind for kind, sets in COMPLETE.items() if any(each <= roles.keys() for each in sets)]
    if not complete:
        raise ValueError(
            f"the adapter of {target!r} is incomplete: there are {', '.join(roles.values())}, and a "
            "counterpart is missing"
        )
    kind = complete[0]
    tensors = {
        role: checkpoint.load(name) for role, name in roles.items() if role not in ("alpha", "bias", "magnitude")
    }
    for role, tensor in tensors.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            raise ValueError(f"{roles[role]!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected a matrix")
    rank = _rank(kind, tensors)
    config = _config_of(checkpoint, target)
    alpha = _alpha(checkpoint, target, roles, kind, config)
    scale = _scale(kind, target, rank, alpha, config)
    try:
        operator = _OPERATORS[kind](tensors, scale)
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(f"{roles[role]} {tuple(tensor.shape)}" for role, tensor in tensors.items())
        raise ValueError(f"the tensors of the adapter of {target!r} do not fit together: {shapes}") from error
    transposed = kind == "lora" and bool(config.get("fan_in_fan_out")) and "down" in tensors
    return Adapter(kind, operator, rank, alpha, scale, tuple(roles.values()), "magnitude" in roles, transposed)


def _rank(kind: str, tensors: Mapping[str, Tensor]) -> int | None:
    # Also in Tucker form the second factor is (rank, inputs).
    for role in ("down", "embedding_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if role in tensors and kind != "full":
            return tensors[role].shape[0]
    return None


def _config_of(checkpoint: Checkpoint, target: str) -> dict[str, Any]:
    """Configuration by peft for a target: adapter_config.json, or what diffusers keeps in the metadata."""
    config = checkpoint.config.get("", {})
    if "peft_type" in config:
        return dict(config)
    try:
        packed = json.loads(checkpoint.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(packed, dict):
        return {}
    prefix = f"{target.split('.')[0]}."
    return {key.removeprefix(prefix): value for key, value in packed.items() if key.startswith(prefix)}


def _alpha(
    checkpoint: Checkpoint, target: str, roles: Mapping[str, str], kind: str, config: Mapping[str, Any]
) -> float | None:
    if "alpha" in roles:
        stored = checkpoint.load(roles["alpha"])
        if stored.numel() != 1:
            raise ValueError(f"{roles['alpha']!r} has the shape {tuple(stored.shape)}; expected one number")
        return float(stored)
    alpha = _configured(config, target, "alpha_pattern", "lora_alpha" if kind == "lora" else "alpha")
    return float(alpha) if isinstance(alpha, int | float) else None


def _configured(config: Mapping[str, Any], target: str, patterns: str, key: str) -> Any:
    """A setting that peft lets differ between layers; the keys of its patterns are expressions of the names' ends."""
    exceptions = config.get(patterns)
    for pattern, value in (exceptions if isinstance(exceptions, dict) else {}).items():
        # The expression comes out of a file: one that could take forever is passed over.
        if len(_REPEATED.findall(pattern)) > _MOST_REPEATS or _NESTED.search(pattern):
            continue
        try:
            if re.match(rf"(.*\.)?({pattern})$", re.sub(r" \([^()]*\)$", "", target)):
                return value
        except re.error:
            continue
    return config.get(key)


def _scale(kind: str, target: str, rank: int | None, alpha: float | None, config: Mapping[str, Any]) -> float:
    if kind == "full" or not alpha:
        return 1.0
    if rank is None:  # LoKr with two whole factors
        configured = _configured(config, target, "rank_pattern", "r")
        return alpha / configured if isinstance(configured, int) and configured else 1.0
    return alpha / (math.sqrt(rank) if kind == "lora" and config.get("use_rslora") else max(rank, 1))


def _lora(tensors: Mapping[str, Tensor], scale: float) -> LinearOperator:
    if "embedding_down" in tensors:  # the weight of an embedding is (tokens, features), and the product its transpose
        return LowRank(tensors["embedding_down"].mT, tensors["embedding_up"].mT, scale)
    up, down = tensors["up"], tensors["down"]
    if "mid" in tensors:
        return LowRank.with_core(up, tensors["mid"], down, scale)
    groups, rest = divmod(down.shape[0], max(up.shape[1], 1))
    if groups > 1 and not rest and up.shape[0] % groups == 0:
        # peft on a grouped convolution: only the second factor is grouped.
        up = torch.block_diag(*up.flatten(1).chunk(groups))
    return LowRank(up, down, scale)


def _loha(tensors: Mapping[str, Tensor], scale: float) -> LinearOperator:
    return Hadamard(_factors(tensors, "hada_w1", "hada_t1"), _factors(tensors, "hada_w2", "hada_t2"), scale)


def _lokr(tensors: Mapping[str, Tensor], scale: float) -> LinearOperator:
    first = tensors["lokr_w1"] if "lokr_w1" in tensors else _factors(tensors, "lokr_w1", "")
    second = tensors["lokr_w2"] if "lokr_w2" in tensors else _factors(tensors, "lokr_w2", "lokr_t2")
    return Kronecker(first, second, scale)


def _factors(tensors: Mapping[str, Tensor], part: str, core: str) -> LowRank:
    first, second = tensors[f"{part}_a"], tensors[f"{part}_b"]
    # With a core both factors are stored as (rank, features), without one as (outputs, rank) and (rank, inputs).
    return LowRank.with_core(first.mT, tensors[core], second) if core in tensors else LowRank(first, second)


def _full(tensors: Mapping[str, Tensor], scale: float) -> LinearOperator:
    return Dense(tensors["diff"])


_OPERATORS = {"lora": _lora, "loha": _loha, "lokr": _lokr, "full": _full}
