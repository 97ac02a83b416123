"""LoRA in the layout of kohya's trainers, which ComfyUI, AUTOMATIC1111 and their descendants load."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.checkpoint.original_names import original_layers
from lsdr.stable_diffusion.lora import Factors, plain
from lsdr.stable_diffusion.pipeline import Family


def kohya_state(network: nn.Module, family: Family, factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    r"""Factors by kohya's names: "lora_unet_<layer>.lora_down.weight", ".lora_up.weight" and ".alpha".

    Layers of Stable Diffusion 1.x and 2.x are called as diffusers calls them; those of XL, 3 and Flux as the models'
    original code does ("lora_unet_input_blocks_4_1_...", "lora_unet_joint_blocks_0_x_block_...",
    "lora_unet_double_blocks_0_..."), underscores for dots. Where the original code has one layer for several of
    diffusers', its factors are exact too, of the rank of all of them together:

    .. math:: \begin{pmatrix} B_q A_q \\ B_k A_k \\ B_v A_v \end{pmatrix} =
        \begin{pmatrix} B_q & & \\ & B_k & \\ & & B_v \end{pmatrix} \begin{pmatrix} A_q \\ A_k \\ A_v \end{pmatrix}

    and a part without factors has rows of zeros.

    Source: kohya's sd-scripts, `networks/lora.py`, `lora_sd3.py`, `lora_flux.py` and `convert_flux_lora.py`.

    Args:
        network: The network that the factors are of; only its layers' names and sizes are read.
        family: What it is.
        factors: By layer; of one rank and alpha.

    Returns:
        The tensors, float32 on the CPU.

    Raises:
        ValueError: If a layer has no counterpart in kohya's layout, or ranks differ within one; the message names it.
    """
    if family == "sd":
        named: dict[str, tuple[str, ...]] = {layer.replace(".", "_"): (layer,) for layer in factors}
    else:
        layers = [name for name, module in network.named_modules() if _is_layer(module)]
        original = original_layers(layers)
        named = {
            name.replace(".", "_"): parts for name, parts in original.items() if any(part in factors for part in parts)
        }
    known = {part for parts in named.values() for part in parts}
    unknown = [layer for layer in factors if layer not in known]
    if unknown:
        listed = ", ".join(unknown[:3]) + ", ..." * (len(unknown) > 3)
        raise ValueError(f"{len(unknown)} layers have no name in kohya's layout ({listed})")
    state: dict[str, Tensor] = {}
    for name, parts in named.items():
        joined = _joined(network, parts, factors)
        state[f"lora_unet_{name}.lora_down.weight"] = plain(joined.down)
        state[f"lora_unet_{name}.lora_up.weight"] = plain(joined.up)
        state[f"lora_unet_{name}.alpha"] = torch.tensor(joined.alpha, dtype=torch.float32)
    return state


def kohya_metadata(network: nn.Module, family: Family, factors: Mapping[str, Factors]) -> dict[str, str]:
    """What other tools read to tell which model a LoRA is for: AUTOMATIC1111 hides those of another version.

    Source: kohya's `train_network.py` (names) and AUTOMATIC1111's `extensions-builtin/Lora/network.py` (what is read).
    """
    first = next(iter(factors.values()))
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(first.rank),
        "ss_network_alpha": str(first.alpha),
    }
    if family == "sd":
        # Stable Diffusion 2.x is told by its linear projections around the attention, convolutions in 1.x.
        second = bool(getattr(network, "config", {}).get("use_linear_projection"))
        return metadata | {"ss_v2": str(second), "ss_base_model_version": "sd_v2" if second else "sd_v1"}
    version = {"sdxl": "sdxl_base_v1-0", "flux": "flux1"}.get(family)
    return metadata | ({"ss_base_model_version": version} if version else {})


def _is_layer(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1


def _outputs(layer: Any) -> int:
    return int(layer.weight.shape[0])


def _joined(network: nn.Module, parts: tuple[str, ...], factors: Mapping[str, Factors]) -> Factors:
    if len(parts) == 1:
        return factors[parts[0]]
    there = [factors[part] for part in parts if part in factors]
    if len({(each.rank, each.alpha) for each in there}) > 1:
        raise ValueError(f"{', '.join(parts)} are one layer in kohya's layout: give them the same rank and alpha")
    rank, columns = there[0].rank, there[0].rank * len(there)
    rows, column = [], 0
    for part in parts:
        height = _outputs(network.get_submodule(part))
        row = there[0].up.new_zeros(height, columns)
        if part in factors:
            row[:, column : column + rank] = factors[part].up.detach()
            column += rank
        rows.append(row)
    down = torch.cat([each.down.detach() for each in there])
    return Factors(down, torch.cat(rows), there[0].alpha * len(there))
