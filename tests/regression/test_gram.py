import itertools
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.regression import block_products
from lsdr.regression.batch import Batch
from lsdr.regression.gram import Gram


def columns(p):
    return tuple((f"x{j}", "") for j in range(p))


def table(n, p, seed=0, blocks=4, level=0.0):
    generator = np.random.default_rng(seed)
    x = level + generator.normal(size=(n, p)) @ np.triu(np.ones((p, p)))
    return x, level + x.sum(1) + generator.normal(size=n), generator.integers(0, blocks, n)


def gram_of(x, y, block, weights=None, sizes=(), blocks=4, names=None, **options):
    """One state, the rows given in batches of these sizes and a rest."""
    gram = Gram(blocks, **options)
    ends = [0, *np.cumsum(sizes, dtype=int), len(x)]
    for start, end in itertools.pairwise(ends):
        some = slice(start, end)
        w = None if weights is None else weights[some]
        gram.add(Batch(names or columns(x.shape[1]), x[some], y[some], w, None, block[some]))
    return gram


def exact(z, weights=None):
    """Mean and centred cross-products of float64 rows in rational arithmetic."""
    w = [Fraction(1)] * len(z) if weights is None else [Fraction(float(weight)) for weight in weights]
    rows = [[Fraction(float(value)) for value in row] for row in z]
    total = sum(w)
    mean = [sum(v * row[j] for v, row in zip(w, rows, strict=True)) / total for j in range(z.shape[1])]
    centred = [[value - mean[j] for j, value in enumerate(row)] for row in rows]
    cross = [
        [sum(v * r[i] * r[j] for v, r in zip(w, centred, strict=True)) for j in range(len(mean))]
        for i in range(len(mean))
    ]
    return np.array(mean, float), np.array(cross, float)


def centred_cross(z, weights=None):
    mean = np.average(z, axis=0, weights=weights)
    w = np.ones(len(z)) if weights is None else weights
    return (z - mean).T @ ((z - mean) * w[:, None])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_union_of_blocks_is_what_its_rows_say(weighted, order):
    x, y, block = table(300, 5)
    weights = np.random.default_rng(1).uniform(0, 3, 300) * (np.arange(300) % 7 > 0) if weighted else None
    gram = gram_of(np.asarray(x, order=order), y, block, weights, sizes=(100, 0, 1, 90))
    z = np.column_stack([x, y])
    for union in ([0], [1, 3], [0, 1, 2, 3]):
        rows = np.isin(block, union)
        moments = gram.total(union)
        w = None if weights is None else weights[rows]
        assert moments.count == pytest.approx(rows.sum() if w is None else w.sum(), rel=1e-14)
        assert isinstance(moments.count, float if weighted else int)
        np.testing.assert_allclose(moments.mean, np.average(z[rows], axis=0, weights=w), rtol=1e-13)
        np.testing.assert_allclose(moments.cross, centred_cross(z[rows], w), rtol=1e-12)
        np.testing.assert_array_equal(moments.cross, moments.cross.T)
    used = weights > 0 if weighted else np.ones(300, bool)
    np.testing.assert_array_equal(gram.rows, np.bincount(block[used], minlength=4))
    np.testing.assert_allclose(gram.weights, np.bincount(block, weights, minlength=4), rtol=1e-14)
    np.testing.assert_array_equal(gram.observations, gram.rows)
    np.testing.assert_array_equal(gram.total().cross, gram.total(range(4)).cross)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_columns_one_by_one_make_the_state_that_rows_make(weighted, blocks, level, monkeypatch):
    """In chunks and groups of blocks so small that there are several, a column of another batch missing in both."""
    monkeypatch.setattr(block_products, "_CHUNK_NUMBERS", 1)
    monkeypatch.setattr(block_products, "_LEAST_CHUNK_ROWS", 37)
    monkeypatch.setattr(block_products, "_HANDED_NUMBERS", 2 * 7**2)
    x, y, block = table(150, 4, blocks=blocks, level=level)
    block[:80] = 0
    x[:, 2] = level + (block == 0) * (np.arange(150) % 5)  # constant in the other blocks
    weights = np.random.default_rng(4).uniform(0, 2, 150) * (np.arange(150) % 9 > 0) if weighted else None
    first = np.column_stack([x[:5], np.arange(5.0)])
    states = []
    for values in (x, tuple(x.T.copy())):
        state = Gram(blocks)
        state.add(Batch((*columns(4), ("z", "")), first, y[:5], None, None, block[:5]))
        state.add(Batch(columns(4), values, y, weights, None, block))
        states.append(state)
    z = np.column_stack([np.r_[first, np.column_stack([x, np.zeros(150)])], np.r_[y[:5], y]])
    w = np.r_[np.ones(5), np.ones(150) if weights is None else weights]
    for number in range(blocks):
        mean, cross = exact(*(each[np.r_[block[:5], block] == number] for each in (z, w)))
        scale = np.sqrt(np.outer(np.diagonal(cross), np.diagonal(cross)))
        for state in states:
            moments = state.total([number])
            np.testing.assert_allclose(moments.mean, mean, rtol=1e-14, atol=1e-14)
            assert (np.abs(moments.cross - cross) <= 1e-13 * scale).all()
    np.testing.assert_array_equal(states[0].rows, states[1].rows)


def test_long_batches_are_cut_to_the_cache_whatever_the_order():
    x, y, block = table(30000, 41, blocks=2)
    expected = centred_cross(np.column_stack([x, y])[block == 1])
    for order in "CF":
        gram = gram_of(np.asarray(x, order=order), y, block, blocks=2)
        np.testing.assert_allclose(gram.total([1]).cross, expected, rtol=1e-11)


@pytest.mark.parametrize("strided", [np.s_[::2, ::-1], np.s_[::-1, 1:4]])
def test_rows_may_be_any_view(strided):
    x, y, block = table(60, 5)
    view = x[strided]
    gram = gram_of(view, y[: len(view)], block[: len(view)])
    expected = centred_cross(np.column_stack([view, y[: len(view)]]))
    np.testing.assert_allclose(gram.total().cross, expected, rtol=1e-12)


@given(sizes=st.lists(st.integers(0, 12), max_size=5), split=st.integers(0, 6), order=st.permutations(range(3)))
@settings(max_examples=40, deadline=None)
def test_states_merge_in_any_way_to_the_whole(sizes, split, order):
    x, y, block = table(sum(sizes) + 6, 3, level=10)
    ends = [0, *np.cumsum([3, *sizes, 3])]
    pieces = [slice(start, end) for start, end in itertools.pairwise(ends)]
    halves = Gram(4), Gram(4)
    for index, some in enumerate(pieces):
        halves[index >= split].add(Batch(columns(3), x[some], y[some], None, None, block[some]))
    # The second half's columns come in another order: they are matched by name.
    names = tuple(columns(3)[j] for j in order)
    third = gram_of(x[:, order], y, block, names=names)
    merged = halves[0].merge(halves[1]).merge(third)
    assert merged is halves[0]
    place = [merged.columns.index(name) for name in columns(3)] + [3]
    twice = np.tile(np.column_stack([x, y]), (2, 1))
    np.testing.assert_allclose(merged.total().mean[place], twice.mean(0), rtol=1e-13)
    np.testing.assert_allclose(merged.total().cross[np.ix_(place, place)], centred_cross(twice), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(merged.rows, 2 * np.bincount(block, minlength=4))


def test_merging_leaves_the_other_state_alone_and_an_empty_one_changes_nothing():
    x, y, block = table(50, 3)
    one, other = gram_of(x, y, block), gram_of(x + 1, y, block)
    before = other.total().cross.copy(), other.total().mean.copy(), other.rows.copy()
    one.merge(other).merge(Gram(4))
    for found, kept in zip((other.total().cross, other.total().mean, other.rows), before, strict=True):
        np.testing.assert_array_equal(found, kept)
    start = Gram(4).merge(other)
    np.testing.assert_array_equal(start.total().cross, before[0])
    start.add(Batch(columns(3), x, y, None, None, block))
    np.testing.assert_array_equal(other.total().cross, before[0])


def test_a_level_seen_late_was_zero_before():
    x, y, block = table(90, 3)
    dummy = np.zeros((90, 2))
    dummy[40:50, 0] = dummy[45:90, 1] = 1
    whole = gram_of(np.column_stack([x, dummy]), y, block, names=(*columns(3), ("t", "a"), ("t", "b")))
    late = Gram(4)
    for start, end, names in ((0, 40, ()), (40, 45, ("a",)), (45, 60, ("b", "a")), (60, 90, ("b",))):
        some = slice(start, end)
        parts = [dummy[some, "ab".index(name)] for name in names]
        named = (*columns(3), *(("t", name) for name in names))
        late.add(Batch(named, np.column_stack([x[some], *parts]), y[some], None, None, block[some]))
    assert late.columns == whole.columns
    for union in (range(4), [2]):
        np.testing.assert_allclose(late.total(union).cross, whole.total(union).cross, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(late.total(union).mean, whole.total(union).mean, rtol=1e-13, atol=1e-16)
    # Merging pads the other side's columns too, on both sides.
    first, second = gram_of(x[:40], y[:40], block[:40]), Gram(4)
    second.add(
        Batch((("t", "b"), ("x1", "")), np.column_stack([dummy[60:, 1], x[60:, 1]]), y[60:], None, None, block[60:])
    )
    merged = first.merge(second)
    assert merged.columns == (*columns(3), ("t", "b"))
    rows = np.r_[0:40, 60:90]
    z = np.column_stack([x[rows], dummy[rows, 1], y[rows]])
    z[40:, [0, 2]] = 0
    np.testing.assert_allclose(merged.total().cross, centred_cross(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("drift", [0.0, 3.0])
@pytest.mark.parametrize("level", [1e4, 1e8])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_digit_is_lost_far_from_the_origin(level, drift, weighted):
    """float64 rows whose mean is far from zero, and drifts, against rational arithmetic."""
    x, y, block = table(120, 3, blocks=2, level=level)
    x += drift * np.arange(120)[:, None]
    weights = np.random.default_rng(5).uniform(0.1, 2, 120) if weighted else None
    parts = [
        gram_of(
            x[s : s + 40],
            y[s : s + 40],
            block[s : s + 40],
            None if weights is None else weights[s : s + 40],
            sizes=(15, 1),
            blocks=2,
        )
        for s in (0, 40, 80)
    ]
    gram = Gram(2).merge(parts[0]).merge(parts[1].merge(parts[2]))
    z = np.column_stack([x, y])
    for union in ([0], [0, 1]):
        rows = np.isin(block, union)
        mean, cross = exact(z[rows], None if weights is None else weights[rows])
        scale = np.sqrt(np.outer(np.diagonal(cross), np.diagonal(cross)))
        assert (np.abs(gram.total(union).cross - cross) / scale).max() < 1e-14 * max(1, level / 1e7)
        np.testing.assert_allclose(gram.total(union).mean, mean, rtol=1e-15)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6 + 0.1])
@pytest.mark.parametrize("share", [0.1, 0.8])
@pytest.mark.parametrize("often", [0.5, 0.97])
def test_what_is_constant_in_a_union_of_blocks_has_no_variation_there(value, share, often, weighted):
    """A column that varies in block 3 alone, in batches that hold none, less and more of it."""
    x, y, block = table(400, 2)
    generator = np.random.default_rng(2)
    block[:10] = 0
    block[10:100] = generator.choice([0, 1, 2, 3], 90, p=[*3 * [(1 - share) / 3], share])
    x[:, 1] = np.where(block == 3, value + (generator.uniform(size=400) < often), value)
    weights = generator.uniform(0.1, 2, 400) if weighted else np.ones(400)
    states = [gram_of(x, y, block, weights if weighted else None, sizes=(10, 90, 1, 60, 3))]
    for sizes in ((10, 90), (30, 70)):
        first, second = (
            gram_of(x[rows], y[rows], block[rows], weights[rows], sizes=some)
            for rows, some in ((slice(100), sizes), (slice(100, 400), (100, 1)))
        )
        states += [Gram(4).merge(first).merge(second), Gram(4).merge(second).merge(first)]
    rows = block == 3
    expected = centred_cross(np.column_stack([x, y])[rows], weights[rows])
    for state in states:
        for union in ([0, 1, 2], [1]):
            assert not state.total(union).cross[1].any()
            assert not state.total(union).cross[:, 1].any()
            assert state.total(union).mean[1] == pytest.approx(value, abs=1e-15, rel=1e-15)
        np.testing.assert_allclose(state.total([3]).cross, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1, -1e-3])
def test_a_constant_is_found_exactly(value):
    x, y, block = table(333, 2)
    x[:, 0] = value
    moments = gram_of(x, y, block, sizes=(100, 7)).total()
    assert moments.mean[0] == value
    assert not moments.cross[0].any()


def test_a_block_unlike_its_batch_keeps_its_digits():
    """One block holds rows that are a million times larger than those of the other, in every batch."""
    x, y, block = table(64, 2, blocks=2)
    block = np.arange(64) % 2
    x[block == 1] = 1e7 * (1 + x[block == 1])
    gram = gram_of(x, y, block, blocks=2)
    rows = block == 0
    _, cross = exact(np.column_stack([x, y])[rows])
    np.testing.assert_allclose(gram.total([0]).cross, cross, rtol=1e-12)


@pytest.mark.parametrize("first", [1e12, 0.0])
def test_a_small_but_real_variation_is_kept(first):
    x, y, block = table(200, 2)
    x[:, 0] = 1e12 + np.arange(200) % 3
    x[:50, 0] -= 1e12 - first
    block[:50] = 0
    rows = np.isin(block, [1, 2])
    found = gram_of(x, y, block, sizes=(50, 50)).total([1, 2]).cross[0, 0]
    # Means that lie 1e12 from the shift are known to 1e-4 of the deviation: theirs alone is the error.
    assert found == pytest.approx(exact(x[rows])[1][0, 0], rel=1e-9 if first else 1e-4)


@pytest.mark.parametrize("kind", ["frequency", "analytic"])
def test_weights_are_repetitions_in_everything_but_the_rows(kind):
    x, y, block = table(40, 3)
    weights = np.random.default_rng(3).integers(0, 4, 40)
    gram = gram_of(x, y, block, weights.astype(float), frequency=kind == "frequency")
    again = gram_of(x.repeat(weights, 0), y.repeat(weights), block.repeat(weights))
    np.testing.assert_allclose(gram.total().cross, again.total().cross, rtol=1e-12)
    np.testing.assert_allclose(gram.total().mean, again.total().mean, rtol=1e-13)
    np.testing.assert_array_equal(gram.weights, again.rows)
    np.testing.assert_array_equal(gram.observations, again.rows if kind == "frequency" else gram.rows)
    assert gram.rows.sum() == (weights > 0).sum()


def test_a_row_of_no_weight_has_no_say():
    x, y, block = table(40, 3)
    weights = (np.arange(40) > 20).astype(float)
    x[:21] = 1e300
    kept = gram_of(x[21:], y[21:], block[21:], weights[21:])
    np.testing.assert_array_equal(gram_of(x, y, block, weights).total().cross, kept.total().cross)
    nothing = gram_of(x[:21], y[:21], block[:21], weights[:21])
    assert nothing.total().count == 0
    np.testing.assert_array_equal(nothing.merge(kept).total().cross, kept.total().cross)


def test_no_rows_do_not_set_the_shift():
    x, y, block = table(40, 3, level=1e9)
    empty = Batch(columns(3), x[:0], y[:0], None, None, block[:0], missing=5)
    gram = Gram(4)
    gram.add(empty)
    assert (gram.total().count, gram.rows.sum(), gram.missing, gram.columns) == (0, 0, 5, columns(3))
    gram.add(Batch(columns(3), x, y, None, None, block))
    np.testing.assert_array_equal(gram.total().cross, gram_of(x, y, block).total().cross)


def test_totals_share_the_work_and_count_a_block_as_often_as_it_is_named():
    x, y, block = table(200, 3)
    gram = gram_of(x, y, block, sizes=(60,))
    groups = [[0, 2], [1, 1, 3], [], [0, 1, 2, 3]]
    z = np.column_stack([x, y])
    for group, moments in zip(groups, gram.totals(groups), strict=True):
        rows = np.concatenate([np.flatnonzero(block == number) for number in group] or [np.empty(0, int)])
        assert moments.count == len(rows)
        if len(rows):
            np.testing.assert_allclose(moments.mean, z[rows].mean(0), rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(moments.cross, centred_cross(z[rows]), rtol=1e-12)
    assert gram.totals([]) == []


def test_no_features_at_all():
    gram = gram_of(np.empty((30, 0)), np.arange(30.0), np.arange(30) % 4)
    np.testing.assert_allclose(gram.total().cross, [[30 * (900 - 1) / 12]])


def test_the_state_goes_through_pickle():
    x, y, block = table(50, 3)
    gram = gram_of(x, y, block)
    again = pickle.loads(pickle.dumps(gram))
    np.testing.assert_array_equal(again.merge(gram).total().cross, gram_of(x, y, block).merge(gram).total().cross)


def test_batches_are_left_alone():
    x, y, block = table(50, 3)
    weights = np.ones(50)
    given_rows = [array.copy() for array in (x, y, block, weights)]
    for array in (x, y, block, weights):
        array.flags.writeable = False
    gram_of(x, y, block, weights)
    for array, kept in zip((x, y, block, weights), given_rows, strict=True):
        np.testing.assert_array_equal(array, kept)


def add(x=None, y=None, weights=None, block=None, frequency=False):
    x = np.arange(12.0).reshape(4, 3) if x is None else x
    block = np.arange(4) if block is None else block
    y = np.arange(4.0) if y is None else y
    Gram(4, frequency=frequency).add(Batch(columns(3), x, y, weights, None, block, start=100))


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("not negative, got -1.0 in row 102", lambda: add(weights=np.array([1, 0, -1, 1.0]))),
        ("finite and not negative, got nan in row 101", lambda: add(weights=np.array([1, np.nan, 1, 1.0]))),
        ("must be whole, got 0.5 in row 103", lambda: add(weights=np.array([1, 0, 1, 0.5]), frequency=True)),
        ("numbered 0 to 3, got 0 to 4", lambda: add(block=np.array([0, 1, 2, 4]))),
        ("numbered 0 to 3, got -1 to 3", lambda: add(block=np.array([-1, 1, 2, 3]))),
        ("got inf in row 101 of x2", lambda: add(x=np.array([[1, 2, 3], [1, 2, np.inf], [1, 2, 3], [4, 5, 6]]))),
        ("got nan in row 103 of the target", lambda: add(y=np.array([1, 2, 3, np.nan]))),
        ("divide x1 by a power of ten", lambda: add(x=np.array([[1, 1e200, 3], [1, -2e200, 3], [1, 2, 3], [4, 5, 6]]))),
        ("at least 1, got 0", lambda: Gram(0)),
        ("differ: .*4, True, False.* and .*5, True", lambda: Gram(4).merge(Gram(5))),
        ("differ", lambda: Gram(4).merge(Gram(4, intercept=False))),
        ("differ", lambda: Gram(4).merge(Gram(4, frequency=True))),
    ],
)
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_values_whose_squares_vanish_are_named():
    x, y, block = table(30, 3)
    x[:, 1] *= 1e-200
    gram = gram_of(x, y, block)
    with pytest.raises(ValueError, match="values of x1 are so small"):
        gram.total()
    x[:, 1] = 0
    x[7, 1] = 1e-200  # one such value among others is fine
    x[8, 1] = 1
    assert gram_of(x, y, block).total().cross[1, 1] > 0
