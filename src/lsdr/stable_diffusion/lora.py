"""LoRA on a diffusion network: low-rank factors beside frozen weights."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.tuners import is_adapted

# Attention projections as diffusers names them, in the UNets and in the transformers of Stable Diffusion 3 and Flux.
_ATTENTION = re.compile(r"(.+\.)?attn\d*\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)")


@dataclass(frozen=True, eq=False)
class Factors:
    r"""The two factors of one layer's change, alpha / rank * up @ down.

    Attributes:
        down: First factor, (rank, inputs) or, of a convolution, (rank, channels, height, width).
        up: Second factor, (outputs, rank) or (outputs, rank, 1, 1).
        alpha: What the product is multiplied by, times the rank.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The number of rows of `down`."""
        return self.down.shape[0]


def add_lora(
    network: nn.Module, *, rank: int = 16, alpha: float | None = None, targets: Sequence[str] | None = None
) -> list[str]:
    r"""Freeze a network and put trainable factors beside some of its layers.

    .. math:: W x + \tfrac{\alpha}{r} B A x, \quad A \in \mathbb{R}^{r \times n},\ B \in \mathbb{R}^{m \times r}

    with B = 0 and A uniform (Kaiming, drawn from torch's global generator), so that nothing changes before the first
    step. The factors are float32 whatever the network's type. A layer takes r (m + n) parameters and about as many
    multiplications an input more.

    Source: LoRA, Hu et al. 2021 (2106.09685), section 4.1, by peft through diffusers' `add_adapter`.

    Args:
        network: A UNet or transformer of diffusers without adapters; changed in place.
        rank: r, at least 1.
        alpha: Of the scale alpha / r, above 0; None: r, so that the scale is 1.
        targets: Which linear layers and convolutions: ends of their names in whole parts ("to_q", "ff.net.0.proj") or
            globs over whole names ("*attn2*", "*"). None: the projections of all attention layers.

    Returns:
        Names of the layers with factors, in the network's order.

    Raises:
        ValueError: If rank or alpha is out of range, a target matches no layer, or there are adapters already.
        TypeError: If the network takes no adapters.

    Example:
        >>> from diffusers import UNet2DConditionModel
        >>> network = UNet2DConditionModel(
        ...     block_out_channels=(8,), norm_num_groups=4, cross_attention_dim=8, layers_per_block=1,
        ...     down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        ... )
        >>> layers = add_lora(network, rank=2)
        >>> len(layers), layers[0]
        (32, 'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q')
        >>> sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        1024
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; a LoRA needs at least 1")
    if alpha is not None and not alpha > 0:
        raise ValueError(f"alpha is {alpha}; expected more than 0: the change is multiplied by alpha / rank")
    if not hasattr(network, "add_adapter"):
        raise TypeError(f"{type(network).__name__} takes no adapters; expected a UNet or transformer of diffusers")
    if any(is_adapted(module) for module in network.modules()):
        raise ValueError("the network has adapters already; load it anew, or merge them first")
    layers = _layers(network, targets)
    from peft import LoraConfig

    # One expression that matches whole names: entries of a list would match ends of others' names too.
    names = "|".join(re.escape(layer) for layer in layers)
    adapter: Any = network
    adapter.add_adapter(LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=names))
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return layers


def factors_of(network: nn.Module) -> dict[str, Factors]:
    """The factors of all layers with LoRA, by the layer's name, on the device where they are and sharing their memory.

    Raises:
        ValueError: If there are none, or a layer's adapter is not one LoRA that is on and apart from its weight.
    """
    found = {}
    for name, module in network.named_modules():
        if is_adapted(module):
            found[name] = _factors(name, module)
    if not found:
        raise ValueError(f"{type(network).__name__} has no layer with LoRA: call add_lora first")
    return found


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """The factors by peft's names, "<layer>.lora_A.weight" and "<layer>.lora_B.weight": copies on the CPU, in float32.

    Raises:
        ValueError: As `factors_of`.
    """
    state = {}
    for layer, factors in factors_of(network).items():
        state[f"{layer}.lora_A.weight"] = plain(factors.down)
        state[f"{layer}.lora_B.weight"] = plain(factors.up)
    return state


def plain(tensor: Tensor) -> Tensor:
    """A copy to write: on the CPU, contiguous, in float32, without history."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _layers(network: nn.Module, targets: Sequence[str] | None) -> list[str]:
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if targets is None:
        chosen = [layer for layer in layers if _ATTENTION.fullmatch(layer)]
        if not chosen:
            raise ValueError(f"{type(network).__name__} has no attention layers as diffusers names them; give targets")
        return chosen
    if isinstance(targets, str) or not targets:
        raise ValueError(f"targets is {targets!r}; expected names of layers such as ('to_q', 'to_v')")
    matches = {target: [layer for layer in layers if _is_meant(layer, target)] for target in targets}
    lost = [target for target, matched in matches.items() if not matched]
    if lost:
        ends = sorted({re.sub(r".*\.(?=\D)", "", layer) for layer in layers})
        raise ValueError(f"no layer's name matches the target {lost[0]!r}; ends of names are {', '.join(ends)}")
    chosen = [layer for layer in layers if any(layer in matched for matched in matches.values())]
    grouped = [layer for layer in chosen if getattr(network.get_submodule(layer), "groups", 1) != 1]
    if grouped:
        raise ValueError(f"{grouped[0]!r} is a grouped convolution, whose factors no format holds: leave it out")
    return chosen


def _is_meant(layer: str, target: str) -> bool:
    if any(character in target for character in "*?["):
        return fnmatchcase(layer, target)
    return layer == target or layer.endswith(f".{target}")


def _factors(name: str, module: Any) -> Factors:
    active = [each for each in getattr(module, "active_adapters", []) if each in getattr(module, "lora_A", {})]
    if len(active) != 1 or is_adapted(module.base_layer):
        raise ValueError(
            f"{name} has {len(active)} active LoRA adapters; only one can be saved: merge or remove others"
        )
    (adapter,) = active
    if module.merged or module.disable_adapters:
        raise ValueError(f"the LoRA of {name} is merged or switched off; unmerge it and switch it on to save it")
    if adapter in getattr(module, "lora_variant", {}):
        raise ValueError(f"the adapter of {name} does more than to add a product (DoRA): it cannot be saved as LoRA")
    down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    # The scale itself, as it may be alpha / sqrt(rank).
    return Factors(down, up, float(module.scaling[adapter]) * down.shape[0])
