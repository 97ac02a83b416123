"""Blocks of a model, and what is said of each as a whole."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any


def block_of(name: str) -> str:
    """The part of a layer's name that says where in the model it is: up to the first number, the number included.

    Example:
        >>> block_of("unet.down_blocks.0.attentions.1.proj_in"), block_of("mid_block.attentions.0.to_q")
        ('unet.down_blocks.0', 'mid_block')
    """
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        if part == "mid_block":
            return ".".join(parts[: place + 1])
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1]) or name


def aggregate(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One object a block, in the order of its first layer.

    Returns:
        "block", "layers", "parameters", "frobenius" (of all its weights together), "sigma_max" (the largest of a
        layer) and which layer has it, and the medians of the layers' sigma over target, stable and effective rank; of
        a comparison also the norm of the change, alone and over the base's.
    """
    blocks: dict[str, list[dict[str, Any]]] = {}
    for layer in layers:
        blocks.setdefault(layer["block"], []).append(layer)
    return [_block(name, members) for name, members in blocks.items()]


def _block(name: str, layers: list[dict[str, Any]]) -> dict[str, Any]:
    measured = [layer for layer in layers if layer["sigma_max"] is not None]
    largest = max(measured, key=lambda layer: layer["sigma_max"], default=None)
    found: dict[str, Any] = {
        "block": name,
        "layers": len(layers),
        "parameters": sum(layer["parameters"] for layer in layers),
        "frobenius": math.hypot(*(layer["frobenius"] for layer in measured)) if measured else None,
        "sigma_max": largest["sigma_max"] if largest else None,
        "largest": largest["name"] if largest else None,
    }
    for statistic in ("sigma_over_target", "stable_rank", "effective_rank"):
        values = [layer[statistic] for layer in measured if layer[statistic]]
        found[f"median_{statistic}"] = median(values) if values else None
    changes = [layer["delta"] for layer in layers if (layer.get("delta") or {}).get("frobenius") is not None]
    if changes:
        size = math.hypot(*(change["frobenius"] for change in changes))
        base = math.hypot(*(change["frobenius"] / change["relative"] for change in changes if change["relative"]))
        found["delta"] = {
            "frobenius": size,
            "relative": size / base if base > 0 else None,
            "intruder_dimensions": sum(change.get("intruder_dimensions") or 0 for change in changes),
        }
    return found
