"""Reading a source whole, the way a pass does."""

import pandas as pd
import pytest

from lsdr.regression.columns import column_name
from lsdr.regression.one_pass import one_pass
from lsdr.regression.plan import make_plan
from lsdr.regression.sources.open import open_source


class Kept:
    """Every batch, as frames."""

    def __init__(self):
        self.frames = []
        self.missing = 0
        self.missing_by = {}

    def add(self, batch):
        frame = pd.DataFrame(batch.x.copy(), columns=[column_name(column) for column in batch.columns])
        frame["<y>"], frame["<block>"] = batch.y, batch.blocks
        for name, values in (("<w>", batch.weights), ("<c>", batch.clusters)):
            if values is not None:
                frame[name] = values
        self.frames.append(frame)
        self.missing += batch.missing
        for name, count in batch.missing_by.items():
            self.missing_by[name] = self.missing_by.get(name, 0) + count

    def merge(self, other):
        self.frames += other.frames
        self.missing += other.missing
        for name, count in other.missing_by.items():
            self.missing_by[name] = self.missing_by.get(name, 0) + count
        return self

    @property
    def frame(self):
        """All rows; a dummy that a batch did not have was 0 there."""
        return pd.concat(self.frames, ignore_index=True).fillna(0.0)


@pytest.fixture
def read():
    def read(data, target="y", **options):
        source = open_source(data)
        plan = make_plan(source, target, **options)
        first = source.peek(plan)
        kept = one_pass(source, plan, Kept, workers=1)
        assert (first is None) == (not any(len(frame) for frame in kept.frames))
        return kept

    return read
