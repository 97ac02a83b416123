"""Outliers: as many as asked for, the same ones however they are read, clean rows untouched."""

import pytest
import torch

from lsdr.representation.contaminated import Contaminated
from lsdr.representation.data.fields import ImageFields, TableFields, TextFields


class Rows:
    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["index"])

    def __getitems__(self, positions):
        return {name: value[list(positions)] for name, value in self.batch.items()}


COUNT = 400
KINDS = {
    "image": (
        ImageFields((1, 4, 4), (0.5,), (0.2,), largest=65535.0),
        {"image": torch.full((COUNT, 1, 4, 4), 7, dtype=torch.uint16)},
    ),
    "text": (TextFields(50, 6, ""), {"tokens": torch.full((COUNT, 6), 7)}),
    "table": (
        TableFields(("a", "b"), ("c",), (5,), (0.0, 0.0), (1.0, 1.0), (("p", "q", "r", "s"),)),
        {
            "numeric": torch.zeros(COUNT, 2),
            "categorical": torch.ones(COUNT, 1, dtype=torch.int64),
            "missing": torch.ones(COUNT, 3, dtype=torch.bool),
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_rows_is_replaced(kind):
    fields, values = KINDS[kind]
    clean = {**values, "index": torch.arange(COUNT), "label": torch.arange(COUNT)}
    dirty = Contaminated(Rows(clean), 0.25, fields)
    whole = dirty.__getitems__(range(COUNT))
    name = next(iter(values))
    changed = (whole[name].flatten(1) != clean[name].flatten(1)).any(1)
    assert 70 < int(changed.sum()) < 130
    for key in values:
        assert whole[key].dtype == clean[key].dtype
        assert torch.equal(whole[key][~changed], clean[key][~changed])
    assert torch.equal(whole["label"], clean["label"])
    assert torch.equal(dirty.__getitems__([17, 3])[name], whole[name][[17, 3]])
    assert torch.equal(values[name], Contaminated(Rows(clean), 0.0, fields).__getitems__(range(COUNT))[name])
    if kind == "image":
        assert int(whole["image"][changed].to(torch.int32).max()) > 40000
    if kind == "text":
        assert int(whole["tokens"].min()) >= 3
    if kind == "table":
        assert float(whole["numeric"][changed].std()) > 5
        assert not bool(whole["missing"][changed].any())


def test_the_order_of_the_examples_stays_their_own():
    fields, values = KINDS["text"]
    rows = Rows({**values, "index": torch.arange(COUNT)})
    assert Contaminated(rows, 0.1, fields).order is None
    rows.order = "its own"
    assert Contaminated(rows, 0.1, fields).order == "its own"
