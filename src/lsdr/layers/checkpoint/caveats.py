"""What names and types tell about stored numbers that are not the weights themselves."""

from collections.abc import Mapping
from pathlib import Path

import torch

from lsdr.layers.checkpoint.entry import Entry
from lsdr.layers.checkpoint.names import weight_norms

_FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


def refuse_packed(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse weights of which several are packed in a number.

    Raises:
        ValueError: If there are any.
    """
    packed = {
        "bitsandbytes": sum(".quant_state.bitsandbytes" in name for name in entries),
        "GPTQ or AWQ": sum(name.endswith(".qweight") for name in entries),
    }
    for library, count in packed.items():
        if count:
            raise ValueError(
                f"{path} holds {count} weights packed into a few bits by {library}; their bytes are no numbers of a "
                "matrix: give the checkpoint that it was made from"
            )


def caveats(entries: Mapping[str, Entry]) -> list[str]:
    """Say where what is stored is not what the network multiplies with."""
    notes = []
    if not entries:
        notes.append("there are no tensors in it")
    small = {name for name, entry in entries.items() if str(entry.dtype).removeprefix("torch.") in _FLOAT8}
    scales = [name for name in entries if name.endswith(("weight_scale", "weight_scale_inv", "scale_weight"))]
    if small and scales:
        notes.append(
            f"{len(small)} float8 tensors have scales beside them ({scales[0]}, ...); what is stored is the weight "
            "before its scale"
        )
    quantised = sum(entry.dtype == torch.int8 and len(entry.shape) > 1 for entry in entries.values())
    if quantised:
        notes.append(
            f"{quantised} matrices are stored as 8-bit integers; what is stored is the weight before its scale"
        )
    spectral = [name for name in entries if name.endswith((".0._u", ".weight_u"))]
    if spectral:
        notes.append(
            f"{len(spectral)} weights are under spectral normalisation ({spectral[0]}, ...); what is stored is the "
            "weight before the division"
        )
    norms = weight_norms(entries)
    if norms:
        notes.append(
            f"{len(norms)} weights are stored as magnitude and direction ({next(iter(norms))}, ...); neither alone is "
            "the weight"
        )
    return notes
