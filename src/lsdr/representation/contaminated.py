"""Training examples of which a share was replaced by outliers: for experiments on robustness."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.representation.data.fields import Fields, ImageFields, TableFields, TextFields
from lsdr.training.order import stream_seed

# Gross errors of a table, in standard deviations.
_GROSS = 10.0


class Contaminated(Dataset[Any]):
    """A data set with a share of its examples replaced: by noise (images), random tokens, or gross errors (tables).

    Which examples, and by what, depends on their numbers alone: every run and seed has the same outliers.

    Args:
        dataset: The clean examples.
        share: How many to replace, in [0, 1).
        fields: What they look like.
    """

    def __init__(self, dataset: Any, share: float, fields: Fields) -> None:
        self.dataset, self.share, self.fields = dataset, share, fields
        self.order: Any = getattr(dataset, "order", None)
        if hasattr(dataset, "draw"):
            self.draw: Any = dataset.draw

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """One example as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch of raw examples."""
        batch: dict[str, Tensor] = {name: value.clone() for name, value in self.dataset.__getitems__(positions).items()}
        for row, position in enumerate(positions):
            generator = torch.Generator().manual_seed(stream_seed(0, "outlier", int(position)))
            if float(torch.rand((), generator=generator)) < self.share:
                for name, value in _outlier(batch, row, self.fields, generator).items():
                    batch[name][row] = value.to(batch[name].dtype)
        return batch


def _outlier(batch: dict[str, Tensor], row: int, fields: Fields, generator: torch.Generator) -> dict[str, Tensor]:
    if isinstance(fields, ImageFields):
        noise = torch.rand(batch["image"][row].shape, generator=generator)
        return {"image": fields.smallest + noise * (fields.largest - fields.smallest)}
    if isinstance(fields, TextFields):
        return {"tokens": torch.randint(3, max(fields.vocabulary, 4), batch["tokens"][row].shape, generator=generator)}
    assert isinstance(fields, TableFields)
    numbers = _GROSS * torch.randn(batch["numeric"][row].shape, generator=generator)
    uniform = torch.rand(len(fields.cardinalities), generator=generator)
    levels = torch.tensor(fields.cardinalities)
    return {
        "numeric": numbers,
        "categorical": (uniform * levels).long(),
        "missing": torch.zeros_like(batch["missing"][row]),
    }
