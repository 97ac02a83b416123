import numpy as np
import pytest

from lsdr.representation.data.block_order import BlockOrder, Layout, lay_out
from lsdr.training.order import share

LENGTHS = np.array([10, 30, 5, 20, 17, 8, 25, 40, 12, 9, 14, 22], dtype=np.int64)  # 212 rows
LAYOUT = Layout(streams=2, lanes=2, mix=2, chunk=4)


def order(batch=9, seed=0, layout=LAYOUT, heads=None):
    return BlockOrder(LENGTHS, batch, seed, layout, heads)


def epoch(made, number=0):
    return [row for step in range(made.epoch) for row in made.batch(number * made.epoch + step)]


def test_an_epoch_shows_each_row_once_but_for_a_remainder_that_changes():
    made = order()
    assert made.epoch == 212 // 9
    missing = []
    for number in range(3):
        rows = epoch(made, number)
        assert len(rows) == len(set(rows)) == made.epoch * 9
        assert min(rows) >= 0
        assert max(rows) < 212
        missing.append(frozenset(range(212)) - set(rows))
    assert len(set(missing)) == 3


def test_any_step_can_be_the_first():
    followed = order()
    batches = [followed.batch(step) for step in range(60)]
    assert all(len(batch) == 9 for batch in batches)
    for step in (59, 0, 23, 41, 22):
        assert order().batch(step) == batches[step]


def test_seeds_and_epochs_differ():
    assert epoch(order()) != epoch(order(seed=1))
    made = order()
    assert epoch(made, 0) != epoch(made, 1)


def groups_of(rows):
    return set(np.searchsorted(np.cumsum(LENGTHS), rows, side="right").tolist())


def test_ranks_and_workers_read_rows_of_their_own():
    """A run of rows may begin in the middle of a row group, so neighbours share one at most."""
    made = BlockOrder(np.full(64, 16, dtype=np.int64), 8, 0, Layout(4, 4, 2, 8))
    read = {
        (rank, worker): {row // 16 for step in range(worker, made.epoch, 4) for row in share(made.batch(step), rank, 4)}
        for rank in range(4)
        for worker in range(4)
    }
    assert set().union(*read.values()) == set(range(64))
    assert sum(map(len, read.values())) == 64  # disjoint


def test_a_window_mixes_row_groups_and_stays_within_its_chunks():
    made = BlockOrder(np.full(16, 32, dtype=np.int64), 8, 0, Layout(streams=1, lanes=1, mix=4, chunk=2))
    first = made.batch(0)
    assert len({row // 32 for row in first}) == 4
    assert all(row % 32 < 2 for row in first)
    alone = BlockOrder(np.array([64]), 16, 0, Layout(streams=1, lanes=1, mix=1, chunk=16)).batch(0)
    assert sorted(alone) == list(range(16))
    assert alone != sorted(alone)


def test_chunks_end_where_those_of_the_row_group_do():
    """With a head of 3 rows held out and chunks of 4, the part's first chunk holds 1 row, the next ones 4."""
    made = BlockOrder(np.full(4, 13), 1, 0, Layout(1, 1, 1, 4), heads=np.full(4, 3))
    rows = np.array(epoch(made))
    for at, size in ((0, 1), (1, 4), (5, 4), (9, 4), (13, 1)):
        assert len({(row % 13 + 3) // 4 for row in rows[at : at + size].tolist()}) == 1


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="choose batch_size=212"):
        order(batch=213)
    with pytest.raises(ValueError, match="at least 1"):
        order(batch=0)


def test_one_row_group_and_a_batch_smaller_than_the_streams():
    made = BlockOrder(np.array([10]), 3, 0, Layout(4, 4, 1, 4))
    assert sorted(len(made.batch(step)) for step in range(4)) == [3, 3, 3, 3]
    assert len(set(epoch(made))) == 9


@pytest.mark.parametrize(
    ("rows", "groups", "row_bytes", "columns"),
    [
        (1000, 1, 80.0, 16),
        (1000, 3, 80.0, 16),
        (2**20, 10, 80.0, 16),
        (65536, 160, 80.0, 16),
        (99, 10**5, 5e4, 1),
        (2**20, 1000, 400.0, 100),
    ],
)
def test_layouts_stay_within_their_memory(rows, groups, row_bytes, columns):
    made = lay_out(np.full(groups, rows), row_bytes, columns)
    runs = made.streams * made.lanes
    assert runs * made.mix <= groups
    assert made.mix * made.chunk * row_bytes * runs <= 256 * 2**20
    assert runs == 4 or runs * made.mix * min(rows * row_bytes, columns * 2**20) <= 256 * 2**20
