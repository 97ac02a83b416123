"""Codes of many examples: batch after batch, in evaluation mode, without a trace in the encoder."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lsdr.layers.capture import capture
from lsdr.probes.evaluating import evaluating
from lsdr.representation.data.representation_data import prepare
from lsdr.representation.encoder import Encoder
from lsdr.representation.inputs import Inputs, count, rows


@torch.no_grad()
def encode(
    encoder: Encoder,
    examples: Any,
    *,
    layer: str | None = None,
    batch_size: int = 256,
    device: torch.device | None = None,
) -> Tensor:
    """Encode inputs or a data set.

    The encoder runs in evaluation mode and at full precision, and is left as it was.

    Args:
        encoder: The encoder.
        examples: Inputs, as `prepare` gives them, or a map-style data set of raw batches.
        layer: A layer (see `Encoder.blocks`, and "projector") whose output is wanted instead of the codes; its places
            (pixels, an example's own tokens) are averaged.
        batch_size: Examples in one call.
        device: Where the encoder is; by default where its weights are.

    Returns:
        Shape (n, F), on the CPU.

    Raises:
        ValueError: If there is no example, or no such layer.
    """
    where = device or next(encoder.parameters()).device
    parts: list[Tensor] = []
    with evaluating(encoder):
        for inputs in _batches(examples, encoder, batch_size):
            moved = {name: value.to(where) for name, value in inputs.items()}
            parts.append((encoder.features(moved) if layer is None else _of_layer(encoder, layer, moved)).cpu())
    if not parts:
        raise ValueError("expected examples to encode, got none")
    return torch.cat(parts)


def _batches(examples: Any, encoder: Encoder, batch_size: int) -> Iterator[Inputs]:
    if isinstance(examples, Mapping):
        for start in range(0, count(examples), batch_size):
            yield rows(examples, slice(start, start + batch_size))
        return
    length = len(examples)
    for start in range(0, length, batch_size):
        batch = examples.__getitems__(list(range(start, min(start + batch_size, length))))
        yield prepare(batch, encoder.fields)


def _of_layer(encoder: Encoder, layer: str, inputs: Inputs) -> Tensor:
    found: list[Tensor] = []
    with capture(encoder, layer, lambda name, module, output: found.append(output)):
        encoder(inputs)
    output = found[-1]
    if output.ndim == 3 and "tokens" in inputs:  # (n, L, D)
        weights: Tensor = encoder.backbone.own_tokens(inputs).to(output.dtype)  # type: ignore[operator]
        total: Tensor = (output * weights.unsqueeze(-1)).sum(1)
        return total / weights.sum(1, keepdim=True)
    return output.flatten(2).mean(2) if output.ndim > 2 else output
