"""Rules on adapters (LoRA, LoHa, LoKr)."""

from collections.abc import Sequence
from typing import Any

from lsdr.inspection.findings.finding import Finding
from lsdr.inspection.findings.peers import standings

Layers = Sequence[dict[str, Any]]

SCALE_RATIO, SCALE_DEVIATIONS = 10.0, 5.0
SCALE_OF_BASE = 1.0
RANK_USED = 0.25


def lora_scale(layers: Layers) -> list[Finding]:
    """An adapter's change larger than the weight that it changes, or far larger than its other changes."""
    rows = [layer for layer in layers if layer.get("adapter")]
    found = []
    for layer, at in zip(rows, standings(rows, [row["sigma_max"] for row in rows]), strict=True):
        of_base = layer["adapter"].get("sigma_over_base")
        evidence = {
            "sigma_max": layer["sigma_max"],
            "sigma_over_base": of_base,
            "key_norm": layer["adapter"]["key_norm"],
        }
        if of_base is not None and of_base >= SCALE_OF_BASE:
            text = f"the adapter's spectral norm is {of_base:.3g}x that of the weight it changes"
            found.append(Finding(layer["name"], "lora_scale", "warning", text, evidence, of_base / SCALE_OF_BASE))
        elif at and at.ratio >= SCALE_RATIO and at.deviations >= SCALE_DEVIATIONS:
            text = f"the adapter's spectral norm is {at.ratio:.3g}x the median of its peers ({at.peers} {at.group})"
            evidence |= {"ratio": at.ratio, "robust_deviations": at.deviations, "peers": at.peers}
            found.append(Finding(layer["name"], "lora_scale", "warning", text, evidence, at.ratio / SCALE_RATIO))
    return found


def lora_rank_unused(layers: Layers) -> list[Finding]:
    """An adapter that uses a small part of its rank: a smaller one would do."""
    found = []
    for layer in layers:
        adapter = layer.get("adapter")
        if not adapter or not adapter.get("rank") or adapter["rank"] < 4 or not layer["effective_rank"]:
            continue
        used = layer["effective_rank"] / adapter["rank"]
        if used <= RANK_USED:
            text = f"effective rank {layer['effective_rank']:.3g} of rank {adapter['rank']}: a smaller rank would do"
            evidence = {"effective_rank": layer["effective_rank"], "rank": adapter["rank"]}
            found.append(Finding(layer["name"], "lora_rank_unused", "info", text, evidence, RANK_USED / used))
    return found


RULES = (lora_scale, lora_rank_unused)
