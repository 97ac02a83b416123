"""What the measures of one encoder have in common: examples, codes of every kind, and where results go."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsdr import runs
from lsdr.data.grid import image_grid
from lsdr.representation.inputs import Inputs
from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.representation.measures.material import Encode, Material, Part
from lsdr.representation.views.view import View
from lsdr.training.order import stream_seed


@dataclass(eq=False)
class Session:
    """One encoder under measurement, and its references."""

    encoder: Any
    view: View
    config: RepresentationMeasureConfig
    directory: Path
    material: Material
    encoders: dict[str, Encode]
    """What gives codes, by kind: "codes" those of the encoder, "raw", "pca" and "random" of its references."""
    train: dict[str, Tensor] = field(default_factory=dict)
    """Codes of the training examples by kind."""
    heldout: dict[str, Tensor] = field(default_factory=dict)
    """Codes of the held-out examples by kind."""
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    """By kind, then by name."""
    about: dict[str, Any] = field(default_factory=dict)
    """What findings need to know besides."""

    @property
    def finite(self) -> dict[str, Encode]:
        """Those kinds of which all codes are finite."""
        return {
            kind: encode
            for kind, encode in self.encoders.items()
            if bool(self.train[kind].isfinite().all() and self.heldout[kind].isfinite().all())
        }

    def add(self, found: Mapping[str, Mapping[str, float]]) -> None:
        """Take measures by kind and name."""
        for kind, values in found.items():
            self.measures.setdefault(kind, {}).update(values)

    def flat(self) -> dict[str, float]:
        """All measures by one name; what is not a number is left out."""
        found: dict[str, float] = {}
        for kind, values in self.measures.items():
            suffix = "" if kind == "codes" else f"@{kind}"
            found |= {f"{name}{suffix}": value for name, value in values.items() if math.isfinite(value)}
        return found

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file; numbers that JSON does not have become null."""
        runs.write_json(self.directory / f"{name}.json", _plain(value))

    def draw(self, name: str, images: Tensor, columns: int) -> None:
        """Write a grid of images."""
        with runs.atomic(self.directory / f"{name}.png") as path:
            image_grid(images, columns=columns).save(path, format="png")

    def views(self, part: Part) -> tuple[Inputs, Inputs]:
        """Two views of the examples of a part, the same ones every time."""
        generator = torch.Generator().manual_seed(stream_seed(0, "measured views"))
        a, b = (self.view(part.inputs, self.view.draws(len(part), generator)) for _ in range(2))
        return a, b


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
