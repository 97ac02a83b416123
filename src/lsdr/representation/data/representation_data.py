"""Examples to learn codes of: one part to train on, one kept aside, and what is known of both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.representation.data.fields import Fields, ImageFields, Modality, TextFields
from lsdr.representation.inputs import NO_INPUTS


@dataclass(frozen=True)
class RepresentationData:
    """Examples of one modality.

    Both parts are map-style data sets: `__getitems__(positions)` gives a dict of raw tensors (see `prepare`) with
    "index", the example's number in the whole source, and "label", int64 from 0, -1 where there is none, if there are
    classes. A part with a method `order(batch_size, seed)` brings the order in which it is to be read, and one with a
    method `draw(count, seed)` the positions of some examples that are cheap to read together.
    """

    modality: Modality
    train: Dataset[Any]
    heldout: Dataset[Any]
    fields: Fields
    name: Callable[[int], str]
    """What a person calls the example with this "index"."""
    show: Callable[[int], str]
    """What the example with this "index" says, in one line: the text, or the cells of the row; "" for images."""
    class_names: tuple[str, ...] | None = None
    problems: Callable[[], list[dict[str, Any]]] = list
    """What was wrong with the source so far: ``{"kind", "count", "examples"}`` for each kind of problem."""

    @property
    def classes(self) -> int | None:
        """How many classes the labels tell apart, None without labels."""
        return None if self.class_names is None else len(self.class_names)

    def describe(self, source: str) -> dict[str, Any]:
        """The "data" entry of experiment.json.

        Args:
            source: What the user called it.
        """
        found: dict[str, Any] = {
            "source": source,
            "modality": self.modality,
            "count": _length(self.train),
            "heldout": _length(self.heldout),
            "classes": self.classes,
            "problems": self.problems(),
        }
        fields = self.fields
        if isinstance(fields, ImageFields):
            found |= {"shape": list(fields.shape), "largest": fields.largest}
        elif isinstance(fields, TextFields):
            found |= {"length": fields.length, "vocabulary": fields.vocabulary}
        else:
            found |= {"numeric": list(fields.numeric), "categorical": list(fields.categorical)}
        return found


def _length(dataset: Any) -> int:
    return len(dataset)


def prepare(batch: Mapping[str, Tensor], fields: Fields) -> dict[str, Tensor]:
    """A raw batch as what encoders and views take.

    Images become float32 in [0, 1]; tokens, and the columns of tables, are that already. "index" and "label" are left
    out.

    Args:
        batch: As a part of `RepresentationData` gives it, on any device.
        fields: Of the same data.

    Example:
        >>> fields = ImageFields((1, 1, 2), (0.5,), (0.5,))
        >>> prepare({"image": torch.tensor([[[[0, 255]]]], dtype=torch.uint8), "index": torch.tensor([0])}, fields)
        {'image': tensor([[[[0., 1.]]]])}
    """
    inputs = {name: value for name, value in batch.items() if name not in NO_INPUTS}
    if isinstance(fields, ImageFields):
        span = fields.largest - fields.smallest
        image = inputs["image"].to(torch.float32)
        inputs["image"] = ((image - fields.smallest) / span).clamp(0, 1)
    return inputs


def examples(
    dataset: Dataset[Any], fields: Fields, count: int, device: torch.device, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
    """Some examples of a part, in memory, the same ones every time.

    They are drawn, not the first ones: a source may be sorted by class.

    Args:
        dataset: A part of `RepresentationData`.
        fields: Of the same data.
        count: How many at most.
        device: Where to.
        seed: Which ones.

    Returns:
        Inputs as `prepare` gives them, labels (n,) or None, and "index" (n,).
    """
    read: Any = dataset
    if hasattr(read, "draw"):
        drawn = read.draw(count, seed)
    else:
        permuted = torch.randperm(len(read), generator=torch.Generator().manual_seed(seed))
        drawn = permuted[:count].sort().values.tolist()
    batch = read.__getitems__(drawn)
    moved = {name: value.to(device) for name, value in batch.items()}
    return prepare(moved, fields), moved.get("label"), moved["index"]
