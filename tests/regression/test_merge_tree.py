import pytest

from lsdr.regression.merge_tree import MergeTree


class Span:
    """Which parts were merged, how deep, and how many are alive."""

    alive = 0

    def __init__(self, number):
        self.parts, self.depth = [number], 0
        Span.alive += 1

    def add(self, batch):
        raise NotImplementedError

    def merge(self, other):
        self.parts += other.parts
        self.depth = 1 + max(self.depth, other.depth)
        Span.alive -= 1
        return self


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 100, 1025])
def test_parts_stay_in_order_in_a_shallow_tree_of_few_states(count):
    Span.alive = 0
    tree = MergeTree()
    for number in range(count):
        tree.push(Span(number))
        assert Span.alive <= count.bit_length()
        assert tree.latest().parts[-1] == number
    total = tree.total()
    assert total.parts == list(range(count))
    assert total.depth <= count.bit_length()
    assert Span.alive == 1


def test_nothing_pushed_is_none():
    assert MergeTree().total() is None
