"""An encoder as plain values and tensors, and back: nothing is pickled, no code comes from a file."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from lsdr.representation.data.fields import Fields, ImageFields, TableFields, TextFields
from lsdr.representation.encoder import Encoder
from lsdr.representation.models.images import ConvBackbone
from lsdr.representation.models.projector import projector
from lsdr.representation.models.tables import TableBackbone
from lsdr.representation.models.text import TransformerBackbone

_FIELDS: dict[str, type[Fields]] = {"image": ImageFields, "text": TextFields, "table": TableFields}
_BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "image": ConvBackbone,
    "text": TransformerBackbone,
    "table": TableBackbone,
}


def modality_of(fields: Fields) -> str:
    """The modality that fields are of.

    Example:
        >>> modality_of(ImageFields((1, 8, 8), (0.5,), (0.2,)))
        'image'
    """
    return next(name for name, kind in _FIELDS.items() if isinstance(fields, kind))


def describe(encoder: Encoder) -> dict[str, Any]:
    """What is needed to build an encoder again, but for its weights: JSON values only.

    Args:
        encoder: One of `build_encoder`'s.
    """
    return {
        "modality": modality_of(encoder.fields),
        "fields": asdict(encoder.fields),
        "backbone": encoder.backbone.settings,
        "projector": getattr(encoder.projector, "settings", {"code": encoder.width, "width": 0}),
        "width": encoder.width,
    }


def rebuild(facts: Mapping[str, Any]) -> Encoder:
    """An encoder from what `describe` gave; its weights are initial ones.

    Raises:
        ValueError: If the values are not of an encoder.
    """
    try:
        modality = facts["modality"]
        fields = _FIELDS[modality](**{name: _tuples(value) for name, value in facts["fields"].items()})
        backbone = _BACKBONES[modality](**facts["backbone"])
        return Encoder(backbone, projector(**facts["projector"]), fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"this describes no encoder: {type(error).__name__}: {error}") from error


def _tuples(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
