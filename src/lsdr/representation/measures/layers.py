"""Spectra of every block of an encoder, from two views of the same examples."""

from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.probes.evaluating import evaluating
from lsdr.representation.inputs import Inputs, count, rows
from lsdr.representation.measures.spectrum import spectral_measures, view_measures


@torch.no_grad()
def layer_spectra(encoder: Any, a: Inputs, b: Inputs, batch: int = 256) -> list[dict[str, Any]]:
    """Rank, decay, LiDAR and invariance of what each block puts out, averaged over places; measuring changes nothing.

    Args:
        encoder: With `blocks()`, names of its layers in order of depth, and `features`.
        a: One view of n examples.
        b: The other view of them.
        batch: Examples in one call.

    Returns:
        For each block: "name", what `spectral_measures` gives of view a, "invariance" and "lidar".
    """
    names = encoder.blocks()
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    now: dict[str, Tensor] = {}

    def receive(name: str, module: nn.Module, output: Tensor) -> None:
        seen[name].append(_pooled(encoder, output, now).float().cpu())

    both = []
    with evaluating(encoder), capture(encoder, list(names), receive):
        for inputs in (a, b):
            for start in range(0, count(inputs), batch):
                now = rows(inputs, slice(start, start + batch))
                encoder.features(now)
            both.append({name: torch.cat(parts) for name, parts in seen.items() if parts})
            for parts in seen.values():
                parts.clear()
    found = []
    for name in names:
        if name in both[0]:
            codes = both[0][name], both[1][name]
            found.append({"name": name, **spectral_measures(codes[0]), **view_measures(*codes)})
    return found


def _pooled(encoder: Any, output: Tensor, inputs: Inputs) -> Tensor:
    """One row an example: places averaged out, of texts those that are not padding."""
    if output.ndim == 3 and "tokens" in inputs:
        weights = encoder.backbone.own_tokens(inputs).to(output.dtype)
        averaged: Tensor = (output * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
        return averaged
    return output.flatten(2).mean(2) if output.ndim > 2 else output
