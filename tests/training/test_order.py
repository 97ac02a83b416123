from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from lsdr.training.order import EpochOrder, StepSampler, order_of, share, stream_seed


@given(st.integers(1, 50), st.integers(1, 30), st.integers(0, 5))
def test_every_epoch_shows_every_example_once(count, batch_size, seed):
    order = EpochOrder(count, batch_size, seed)
    steps = -(-3 * count // batch_size)
    seen = [index for step in range(steps) for index in order.batch(step)]
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(st.integers(2, 50), st.integers(1, 30), st.integers(0, 100))
def test_a_batch_does_not_depend_on_the_batches_asked_for_before(count, batch_size, step):
    fresh = EpochOrder(count, batch_size, 0)
    used = EpochOrder(count, batch_size, 0)
    for earlier in range(0, step, 7):
        used.batch(earlier)
    assert fresh.batch(step) == used.batch(step)


@given(st.integers(1, 40), st.integers(1, 8))
def test_shares_join_to_the_whole(count, parts):
    items = list(range(count))
    shares = [share(items, part, parts) for part in range(parts)]
    assert [item for part in shares for item in part] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_see_the_batch_of_one_process():
    whole = iter(StepSampler(EpochOrder(20, 5, 3), start=4, rank=0, world=1))
    ranks = [iter(StepSampler(EpochOrder(20, 5, 3), start=4, rank=rank, world=2)) for rank in range(2)]
    for _ in range(6):
        assert next(whole) == next(ranks[0]) + next(ranks[1])


def test_epochs_differ_and_seeds_differ():
    order = EpochOrder(100, 100, 0)
    assert order.batch(0) != order.batch(1)
    assert order.batch(0) != EpochOrder(100, 100, 1).batch(0)


def test_stream_seeds_are_seeds():
    seeds = {stream_seed(0, "x", step) for step in range(1000)}
    assert len(seeds) == 1000
    torch.Generator().manual_seed(max(seeds))


def test_a_dataset_may_bring_its_own_order():
    class Backwards:
        def __len__(self):
            return 6

        def order(self, batch_size, seed):
            return SimpleNamespace(batch=lambda step: [(5 - step * batch_size - k) % 6 for k in range(batch_size)])

    order = order_of(Backwards(), batch_size=4, seed=0)
    assert [order.batch(step) for step in range(2)] == [[5, 4, 3, 2], [1, 0, 5, 4]]
