import importlib.util
import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lsdr.training.loop import train
from lsdr.training.order import EpochOrder, GroupedOrder, StepSampler, order_of

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)


class Killed(Exception):
    pass


def consecutive(sizes):
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    return [list(range(start, end)) for start, end in itertools.pairwise(ends)]


sizes_of_groups = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@given(sizes_of_groups, st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_shows_every_example_in_batches_of_one_group(sizes, batch_size, seed):
    groups = consecutive(sizes)
    order = GroupedOrder(groups, batch_size, seed)
    assert order.epoch == sum(-(-size // batch_size) for size in sizes)
    for epoch in range(2):
        batches = [order.batch(step) for step in range(epoch * order.epoch, (epoch + 1) * order.epoch)]
        assert all(len(batch) == batch_size for batch in batches)
        seen = Counter(index for batch in batches for index in batch)
        for group in groups:
            own = [batch for batch in batches if set(batch) & set(group)]
            assert len(own) == -(-len(group) // batch_size)
            assert all(set(batch) <= set(group) for batch in own)
            # Filled up evenly: within a group nobody is shown two times more than anybody else.
            shown = [seen[index] for index in group]
            assert min(shown) >= 1
            assert max(shown) - min(shown) <= 1


@given(sizes_of_groups, st.integers(1, 9), st.integers(0, 60))
def test_a_batch_does_not_depend_on_the_batches_asked_for_before(sizes, batch_size, step):
    used = GroupedOrder(consecutive(sizes), batch_size, 0)
    for earlier in (*range(0, step, 7), step + 40):
        used.batch(earlier)
    assert GroupedOrder(consecutive(sizes), batch_size, 0).batch(step) == used.batch(step)


def test_groups_are_mixed_and_epochs_and_seeds_differ():
    order = GroupedOrder(consecutive([40, 40]), 4, 0)
    first, second = ([order.batch(step) for step in range(20 * epoch, 20 * epoch + 20)] for epoch in range(2))
    sides = [batch[0] < 40 for batch in first]
    assert sides != sorted(sides)
    assert sides != sorted(sides, reverse=True)
    assert first != second
    assert [set(batch) for batch in first] != [set(batch) for batch in second]
    assert order.batch(0) != GroupedOrder(consecutive([40, 40]), 4, 1).batch(0)


def test_ranks_share_the_batch_of_one_group():
    groups = consecutive([7, 5])
    whole = iter(StepSampler(GroupedOrder(groups, 5, 3), start=4, rank=0, world=1))
    ranks = [iter(StepSampler(GroupedOrder(groups, 5, 3), start=4, rank=rank, world=2)) for rank in range(2)]
    for _ in range(9):
        batch = next(whole)
        assert batch == next(ranks[0]) + next(ranks[1])
        assert len({index < 7 for index in batch}) == 1


def test_a_returned_batch_may_be_changed():
    order = GroupedOrder([[0, 1, 2]], 3, 0)
    before = tuple(order.batch(0))
    order.batch(0).clear()
    assert tuple(order.batch(0)) == before


@pytest.mark.parametrize("groups", [[], [[0], []], [[0, 1], [1]]])
def test_groups_that_cannot_be_are_refused(groups):
    with pytest.raises(ValueError, match="expected"):
        GroupedOrder(groups, 2, 0)


class Sheets(torch.utils.data.Dataset):
    """Sheets of points of two lengths, which cannot be stacked with each other."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        lengths = [2 if index % 3 else 4 for index in range(19)]
        self.sheets = [torch.randn(length, 6, generator=generator) for length in lengths]
        self.groups = [[i for i, sheet in enumerate(self.sheets) if len(sheet) == length] for length in (2, 4)]

    def __len__(self):
        return len(self.sheets)

    def __getitems__(self, indices):
        return {"x": torch.stack([self.sheets[index] for index in indices]), "index": torch.tensor(indices)}


class SheetTask(toy.ToyTask):
    def __init__(self, dtype=torch.float32, dropout=0.2):
        super().__init__(dataset=Sheets(), dtype=dtype, dropout=dropout)
        self.lengths = []

    def draws(self, count, generator):
        return {"noise": torch.randn(count, 4, 3, generator=generator)}

    def losses(self, model, batch):
        x = batch["x"].to(self.dtype)
        self.lengths.append(x.shape[1])
        target = x[..., :3].cumsum(1) + 0.1 * batch["noise"][:, : x.shape[1]]
        return (model(x) - target.to(self.dtype)).square().mean((1, 2)), {}

    def evaluate(self, model):
        return {}

    def feature_layers(self):
        return None


def run(directory, kill_at=None, task=None, **options):
    def on_step(step, gradient):
        if step == kill_at:
            raise Killed

    settings = toy.config(batch_size=4, **options)
    return train(task or SheetTask(), settings, directory, toy.accelerator(settings), on_step=on_step)


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"workers": 1}])
def test_a_run_on_groups_is_resumed_bitwise(tmp_path, options):
    task = SheetTask()
    assert run(tmp_path / "whole", task=task, **options).status == "finished"
    assert set(task.lengths) == {2, 4}
    for kill_at in (3, 7):
        with pytest.raises(Killed):
            run(tmp_path / "cut", kill_at=kill_at, **options)
    run(tmp_path / "cut", **options)
    one, two = (tmp_path / name / "snapshots/final/model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == two.read_bytes()


def test_micro_batches_of_groups_change_nothing_but_rounding(tmp_path):
    for parts in (1, 2):
        run(tmp_path / str(parts), task=SheetTask(torch.float64, dropout=0.0), accumulate=parts)
    one, two = (load_file(tmp_path / str(parts) / "snapshots/final/model.safetensors") for parts in (1, 2))
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-11)


def test_datasets_without_groups_are_seen_as_before():
    assert isinstance(order_of(toy.Points(), 4, 0), EpochOrder)
    assert isinstance(order_of(Sheets(), 4, 0), GroupedOrder)


@pytest.mark.parametrize("change", ["short", "beyond", "empty"])
def test_groups_must_be_the_dataset(change):
    dataset = Sheets()
    if change == "short":
        dataset.groups = dataset.groups[:1]
    elif change == "beyond":
        dataset.groups[0][0] = 19
    else:
        dataset.sheets = []
    with pytest.raises(ValueError, match=r"expected groups that hold all|empty dataset"):
        order_of(dataset, 4, 0)
