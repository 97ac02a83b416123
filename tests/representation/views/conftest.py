"""Data of each modality, made up, small."""

import pytest
import torch

from lsdr.representation.data.fields import ImageFields, TableFields, TextFields
from lsdr.representation.data.representation_data import RepresentationData


class Rows(torch.utils.data.Dataset):
    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(next(iter(self.inputs.values())))

    def __getitems__(self, indices):
        return {name: value[indices] for name, value in self.inputs.items()} | {"index": torch.tensor(indices)}


def _data(modality, inputs, fields):
    rows = Rows(inputs)
    return RepresentationData(modality, rows, rows, fields, name=str, show=str)


def _images(count=12, shape=(3, 9, 7), values=None):
    if values is None:
        values = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    pictures = (values * 255).round().to(torch.uint8)
    return _data("image", {"image": pictures}, ImageFields(shape, (0.5,) * shape[0], (0.3,) * shape[0]))


def _texts(count=12, length=10, padding=0, mask=2):
    """Texts of 0, 1, 2, ... tokens, all different within a text."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.stack([torch.randperm(length, generator=generator) + 5 for _ in range(count)])
    tokens[torch.arange(length) >= torch.arange(count)[:, None]] = padding
    return _data("text", {"tokens": tokens}, TextFields(20, length, "", padding=padding, mask=mask))


def _table(count=40, numeric=4, categorical=3, missing=1 / 6):
    """Numbers that tell row and column; of the cells some are missing, of the first row all but the first."""
    generator = torch.Generator().manual_seed(0)
    gone = torch.rand(count, numeric + categorical, generator=generator) < missing
    if missing:
        gone[0] = torch.arange(numeric + categorical) > 0
    numbers = torch.arange(count)[:, None] + torch.arange(numeric) / 100 + 1
    codes = torch.randint(1, 6, (count, categorical), generator=generator)
    inputs = {
        "numeric": numbers.masked_fill(gone[:, :numeric], 0),
        "categorical": codes.masked_fill(gone[:, numeric:], 0),
        "missing": gone,
    }
    names = [tuple(f"{letter}{k}" for k in range(size)) for letter, size in (("n", numeric), ("c", categorical))]
    scale = (0.0,) * numeric, (1.0,) * numeric
    return _data("table", inputs, TableFields(*names, (6,) * categorical, *scale, (tuple("abcde"),) * categorical))


@pytest.fixture(scope="session")
def images():
    return _images


@pytest.fixture(scope="session")
def texts():
    return _texts


@pytest.fixture(scope="session")
def table():
    return _table


@pytest.fixture(scope="session")
def everything():
    return {"image": _images(), "text": _texts(), "table": _table()}
