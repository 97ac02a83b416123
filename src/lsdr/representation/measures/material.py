"""The examples on which an encoder is measured, in memory once for all measures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsdr.representation.data.representation_data import RepresentationData, examples
from lsdr.representation.inputs import Inputs, count, rows
from lsdr.representation.measures.config import RepresentationMeasureConfig

Encode = Callable[[Inputs], Tensor]
"""Gives the codes (n, D) of n examples, on the CPU, the same every time."""


@dataclass(frozen=True, eq=False)
class Part:
    """Examples of one part of the data."""

    inputs: Inputs
    labels: Tensor | None
    """Classes (n,) on the CPU, -1 where there is none; None without any."""
    index: Tensor
    """Their numbers in the source, on the CPU."""

    def __len__(self) -> int:
        return len(self.index)

    def first(self, number: int) -> "Part":
        """The first so many of them."""
        part = slice(0, number)
        labels = None if self.labels is None else self.labels[part]
        return Part(rows(self.inputs, part), labels, self.index[part])


@dataclass(frozen=True, eq=False)
class Material:
    """What is measured on."""

    train: Part
    heldout: Part
    data: RepresentationData

    @property
    def labelled(self) -> bool:
        """Whether a probe can learn and be tested: two classes to learn, and a held-out example of one of them."""
        train, heldout = self.train.labels, self.heldout.labels
        if train is None or heldout is None:
            return False
        known = train[train >= 0].unique()
        return len(known) >= 2 and bool(torch.isin(heldout, known).any())


def gather(data: RepresentationData, config: RepresentationMeasureConfig, device: torch.device) -> Material:
    """Read what is measured on: the same examples every time.

    Args:
        data: Both parts.
        config: How many of each.
        device: Where their inputs are to be.
    """
    return Material(
        _part(data.train, data, config.train_examples, device),
        _part(data.heldout, data, config.heldout_examples, device),
        data,
    )


def _part(dataset: Any, data: RepresentationData, number: int, device: torch.device) -> Part:
    inputs, labels, index = examples(dataset, data.fields, number, device)
    if count(inputs) != len(index):
        raise ValueError(f"expected as many inputs as numbers of examples, got {count(inputs)} and {len(index)}")
    # Held in random order: the first so many are then a sample of them too.
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(1))
    shuffled = rows(inputs, order.to(device))
    return Part(shuffled, None if labels is None else labels.cpu()[order], index.cpu()[order])
