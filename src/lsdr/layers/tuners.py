"""Layers adapted by peft or by diffusers' own LoRA layers: the base and the factors, not multiplied out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.weight import read_weight
from lsdr.linalg.hadamard import Hadamard
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import LinearOperator

Rebuild = Callable[[nn.Module, Tensor], LinearOperator]

# Tuners of peft that add to the weight what `get_delta_weight` multiplies out; others scale or rotate the weight.
_ADDITIVE = ("AdaLoraLayer", "LoHaLayer", "LoKrLayer", "VeraLayer", "FourierFTLayer", "VBLoRALayer", "RandLoraLayer")


def is_adapted(module: nn.Module) -> bool:
    """Whether the layer is a base layer with adapters: a tuner layer of peft, or a LoRA layer of diffusers."""
    return "BaseTunerLayer" in _classes(module) or isinstance(getattr(module, "lora_layer", None), nn.Module)


def adapter_operators(module: nn.Module, rebuild: Rebuild) -> tuple[nn.Module, list[LinearOperator]]:
    """The base layer, and what the active adapters add to it as a matrix ("reshape").

    LoRA, LoHa and LoKr stay factors; other adapters are multiplied out. Of merged adapters and of adapters switched
    off there is nothing to add.

    Args:
        module: A layer for which `is_adapted` holds.
        rebuild: Makes the operator of the base layer with another weight, for adapters that are multiplied out.

    Raises:
        ValueError: If an active adapter does not add to the weight (DoRA, OFT, ...), or merged adapters are off.
    """
    tuner: Any = module
    if "BaseTunerLayer" not in _classes(module):
        layer = tuner.lora_layer
        scale = 1.0 if layer.network_alpha is None else layer.network_alpha / layer.rank
        return module, [LowRank(read_weight(layer.up).flatten(1), read_weight(layer.down).flatten(1), float(scale))]
    base: nn.Module = tuner.base_layer
    inner: list[LinearOperator] = []
    if is_adapted(base):
        base, inner = adapter_operators(base, rebuild)
    if tuner.disable_adapters or tuner.merged:
        if tuner.disable_adapters and tuner.merged:
            raise ValueError("the layer's adapters are switched off but still merged into its weight: unmerge them")
        return base, inner
    if getattr(base, "groups", 1) != 1:
        raise ValueError(
            f"adapters of a convolution of {base.groups} groups mix the groups: measure its base_layer and its factors "
            "apart"
        )
    with torch.no_grad():
        active = [name for name in tuner.active_adapters if name in tuner._get_available_adapters()]
        return base, inner + [_delta(tuner, name, base, rebuild) for name in active]


def _delta(tuner: Any, name: str, base: nn.Module, rebuild: Rebuild) -> LinearOperator:
    classes = _classes(tuner)
    if name in getattr(tuner, "lora_variant", {}):
        variant = type(tuner.lora_variant[name]).__name__
        raise ValueError(f"adapter {name!r} ({variant}) does more than to add a product to the weight: merge it first")
    if "LoraLayer" in classes and "AdaLoraLayer" not in classes:
        scale = float(tuner.scaling[name])
        if name in tuner.lora_embedding_A:  # (r, entries) and (width, r), for a weight stored as (entries, width)
            return LowRank(tuner.lora_embedding_A[name].detach().mT, tuner.lora_embedding_B[name].detach().mT, scale)
        up, down = read_weight(tuner.lora_B[name]), read_weight(tuner.lora_A[name])
        return LowRank(up.flatten(1), down.flatten(1), scale)
    if "LoHaLayer" in classes and name not in tuner.hada_t1:
        first = LowRank(tuner.hada_w1_a[name], tuner.hada_w1_b[name])
        second = LowRank(tuner.hada_w2_a[name], tuner.hada_w2_b[name])
        return Hadamard(first, second, float(tuner.scaling[name]))
    if "LoKrLayer" in classes and name not in tuner.lokr_t2:
        # The Kronecker product of a matrix and a kernel, flattened, is that of the matrix and the flattened kernel.
        w1 = tuner.lokr_w1[name] if name in tuner.lokr_w1 else tuner.lokr_w1_a[name] @ tuner.lokr_w1_b[name]
        w2 = tuner.lokr_w2[name] if name in tuner.lokr_w2 else tuner.lokr_w2_a[name] @ tuner.lokr_w2_b[name]
        return Kronecker(w1.detach(), w2.detach().flatten(1), float(tuner.scaling[name]))
    if classes.isdisjoint(_ADDITIVE):
        raise ValueError(f"{type(tuner).__name__} of {type(tuner).__module__} is not known to add: merge it first")
    return rebuild(base, tuner.get_delta_weight(name).detach())


def _classes(module: nn.Module) -> set[str]:
    """Names of the module's classes: peft is not imported for this, and may not be there."""
    return {each.__name__ for each in type(module).__mro__ if each.__module__.startswith("peft.")}
