import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.regression.batch import Batch
from lsdr.regression.r_factor import RFactor


def columns(p):
    return tuple((f"x{j}", "") for j in range(p))


def table(n, p, seed=0, blocks=4, level=0.0):
    generator = np.random.default_rng(seed)
    x = level + generator.normal(size=(n, p)) @ np.triu(np.ones((p, p)))
    return x, level + x.sum(1) + generator.normal(size=n), generator.integers(0, blocks, n)


def factor_of(x, y, block, weights=None, sizes=(), blocks=4, intercept=True, shift=None, names=None, frequency=False):
    names = names or columns(x.shape[1])
    shift = np.append(x[:10].mean(0), y[:10].mean()) if shift is None else shift
    factor = RFactor(blocks, intercept, frequency, shift, names)
    ends = [0, *np.cumsum(sizes, dtype=int), len(x)]
    for start, end in itertools.pairwise(ends):
        some = slice(start, end)
        w = None if weights is None else weights[some]
        factor.add(Batch(names, x[some], y[some], w, None, block[some]))
    return factor


def rows_of(factor, x, y, weights=None):
    """The rows that a factor is of."""
    z = np.column_stack([x, y]) - factor.shift
    z = np.column_stack([np.ones(len(z)), z]) if factor.intercept else z
    return z if weights is None else z * np.sqrt(weights)[:, None]


@pytest.mark.parametrize("intercept", [False, True])
def test_columns_one_by_one_make_the_factor_that_rows_make(intercept):
    x, y, block = table(120, 3)
    weights = np.random.default_rng(2).uniform(0, 2, 120) * (np.arange(120) % 7 > 0)
    names = (*columns(3), ("z", ""))
    shift = np.array([0.5, 0.0, -2.0, 0.0, 1.0])
    found = []
    for values in (x, np.asfortranarray(x), tuple(x.T.copy())):
        state = RFactor(4, intercept, False, shift, names)
        state.add(Batch(columns(3), values, y, weights, None, block))
        found.append(state.factor())
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_union_of_blocks_has_the_factor_of_its_rows(weighted, intercept, order):
    x, y, block = table(300, 5)
    weights = np.random.default_rng(1).uniform(0, 3, 300) * (np.arange(300) % 7 > 0) if weighted else None
    factor = factor_of(np.asarray(x, order=order), y, block, weights, (100, 0, 1, 90), intercept=intercept)
    assert factor.shift.any() == intercept
    z = rows_of(factor, x, y, weights)
    for union in ([0], [1, 3], [0, 1, 2, 3]):
        r = factor.factor(union)
        expected = np.linalg.qr(z[np.isin(block, union)], mode="r")
        np.testing.assert_allclose(r, np.sign(np.diagonal(expected))[:, None] * expected, rtol=1e-11, atol=1e-11)
        np.testing.assert_array_equal(r, np.triu(r))
        assert (np.diagonal(r) >= 0).all()
    used = weights > 0 if weighted else np.ones(300, bool)
    np.testing.assert_array_equal(factor.rows, np.bincount(block[used], minlength=4))
    np.testing.assert_allclose(factor.weights, np.bincount(block, weights, minlength=4), rtol=1e-14)
    np.testing.assert_array_equal(factor.observations, factor.rows)
    np.testing.assert_array_equal(factor.factor(), factor.factor(range(4)))


@pytest.mark.parametrize("exponent", [3, 5, 7])
def test_it_is_as_good_as_a_factorisation_of_all_rows_where_cross_products_fail(exponent):
    """A column that is another but for 10^-exponent: the residual of the regression on the rest keeps its digits."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2000, 4))
    apart = generator.normal(size=2000)
    x[:, 3] = x[:, 0] + 10.0**-exponent * apart
    y = x.sum(1) + generator.normal(size=2000)
    factor = factor_of(1e4 + x, y, generator.integers(0, 4, 2000), sizes=(300, 700))
    r = factor.factor()
    z = np.column_stack([np.ones(2000), x[:, :3]])
    apart = (1e4 + x[:, 3]) - (1e4 + x[:, 0])
    left = apart - z @ np.linalg.lstsq(z, apart, rcond=None)[0]
    assert r[4, 4] == pytest.approx(np.linalg.norm(left), rel=1e-14 * 10**exponent * 100)


@given(sizes=st.lists(st.integers(0, 12), max_size=5), split=st.integers(0, 6), order=st.permutations(range(3)))
@settings(max_examples=30, deadline=None)
def test_states_merge_in_any_way_to_the_whole(sizes, split, order):
    x, y, block = table(sum(sizes) + 6, 3, level=10)
    shift = np.full(4, 10.0)
    ends = [0, *np.cumsum([3, *sizes, 3])]
    halves = [RFactor(4, True, False, shift, columns(3)) for _ in range(2)]
    for index, (start, end) in enumerate(itertools.pairwise(ends)):
        some = slice(start, end)
        halves[index >= split].add(Batch(columns(3), x[some], y[some], None, None, block[some]))
    names = tuple(columns(3)[j] for j in order)
    third = factor_of(x[:, order], y, block, shift=shift, names=names)
    merged = halves[0].merge(halves[1]).merge(third)
    assert merged is halves[0]
    r = merged.factor()
    twice = rows_of(merged, np.tile(x, (2, 1)), np.tile(y, 2))
    np.testing.assert_allclose(r.T @ r, twice.T @ twice, rtol=1e-11, atol=1e-10)
    np.testing.assert_array_equal(merged.rows, 2 * np.bincount(block, minlength=4))


def test_merging_leaves_the_other_state_alone_and_an_empty_one_changes_nothing():
    x, y, block = table(50, 3)
    shift = np.zeros(4)
    one, other = (factor_of(rows, y, block, shift=shift) for rows in (x, x + 1))
    before = other.factor(), other.rows.copy()
    one.merge(other).merge(RFactor(4, True, False, shift, columns(3)))
    np.testing.assert_array_equal(other.factor(), before[0])
    np.testing.assert_array_equal(other.rows, before[1])
    fresh = RFactor(4, True, False, shift, columns(3)).merge(other)
    fresh.add(Batch(columns(3), x, y, None, None, block))
    np.testing.assert_array_equal(other.factor(), before[0])
    np.testing.assert_allclose(fresh.factor(), one.factor(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("intercept", [False, True])
def test_a_level_seen_late_was_zero_before(intercept):
    x, y, block = table(90, 3)
    dummy = np.zeros((90, 2))
    dummy[40:50, 0] = dummy[45:90, 1] = 1
    late = RFactor(4, intercept, False, np.append(x[:10].mean(0), y[:10].mean()), columns(3))
    for start, end, names in ((0, 40, ()), (40, 45, ("a",)), (45, 60, ("b", "a")), (60, 90, ("b",))):
        some = slice(start, end)
        parts = [dummy[some, "ab".index(name)] for name in names]
        named = (*columns(3), *(("t", name) for name in names))
        late.add(Batch(named, np.column_stack([x[some], *parts]), y[some], None, None, block[some]))
    assert late.columns == (*columns(3), ("t", "a"), ("t", "b"))
    np.testing.assert_array_equal(late.shift[3:5], [0, 0])
    z = rows_of(late, np.column_stack([x, dummy]), y)
    for union in (range(4), [2]):
        r, rows = late.factor(union), z[np.isin(block, union)]
        np.testing.assert_allclose(r.T @ r, rows.T @ rows, rtol=1e-11, atol=1e-11)
    first = factor_of(x[:40], y[:40], block[:40], intercept=intercept)
    second = RFactor(4, intercept, False, first.shift, columns(3))
    second.add(
        Batch((("t", "b"), ("x1", "")), np.column_stack([dummy[60:, 1], x[60:, 1]]), y[60:], None, None, block[60:])
    )
    merged = first.merge(second)
    assert merged.columns == (*columns(3), ("t", "b"))
    keep = np.r_[0:40, 60:90]
    wide = np.column_stack([x[keep], dummy[keep, 1]])
    wide[40:, [0, 2]] = 0
    rows, r = rows_of(merged, wide, y[keep]), merged.factor()
    np.testing.assert_allclose(r.T @ r, rows.T @ rows, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_constant_in_a_union_of_blocks_has_no_variation_there(value, weighted):
    x, y, block = table(400, 2)
    x[:, 1] = np.where(block == 3, value + np.arange(400) % 2, value)
    weights = np.random.default_rng(2).uniform(0.1, 2, 400) if weighted else None
    factor = factor_of(x, y, block, weights, sizes=(100, 1, 60, 3))
    for union in ([0, 1, 2], [1]):
        assert not factor.factor(union)[1:, 2].any()
    assert factor.factor([3])[2, 2] > 1
    assert factor.factor([0, 3])[2, 2] > 1


@pytest.mark.parametrize("level", [1e12, 1e10])
def test_a_small_but_real_variation_is_kept(level):
    x, y, block = table(200, 2)
    x[:, 0] = level + np.arange(200) % 3
    rows = np.isin(block, [1, 2])
    shift = None if level == 1e12 else np.zeros(3)
    r = factor_of(x, y, block, sizes=(50, 50), shift=shift).factor([1, 2])
    deviation = (np.arange(200) % 3)[rows].std()
    assert r[1, 1] == pytest.approx(np.sqrt(rows.sum()) * deviation, rel=1e-9 if shift is None else 1e-4)


def test_weights_are_repetitions_in_everything_but_the_rows():
    x, y, block = table(40, 3)
    weights = np.random.default_rng(3).integers(0, 4, 40)
    shift = np.ones(4)
    again = factor_of(x.repeat(weights, 0), y.repeat(weights), block.repeat(weights), shift=shift)
    for frequency in (False, True):
        factor = factor_of(x, y, block, weights.astype(float), shift=shift, frequency=frequency)
        np.testing.assert_allclose(factor.factor(), again.factor(), rtol=1e-11, atol=1e-11)
        np.testing.assert_array_equal(factor.weights, again.rows)
        np.testing.assert_array_equal(factor.observations, again.rows if frequency else factor.rows)


def test_factors_share_the_work_and_count_a_block_as_often_as_it_is_named():
    x, y, block = table(200, 3)
    factor = factor_of(x, y, block, sizes=(60,))
    z = rows_of(factor, x, y)
    groups = [[0, 2], [1, 1, 3], [], [0, 1, 2, 3]]
    for group, r in zip(groups, factor.factors(groups), strict=True):
        rows = np.concatenate([z[block == number] for number in group] or [z[:0]])
        np.testing.assert_allclose(r.T @ r, rows.T @ rows, rtol=1e-12, atol=1e-11)
    assert factor.factors([]) == []


def test_scales_that_cannot_be_squared():
    x, y, block = table(100, 2)
    r = factor_of(x * [1e200, 1e-200], y, block).factor()
    expected = factor_of(x, y, block).factor()
    np.testing.assert_allclose(r * [1, 1e-200, 1e200, 1], expected, rtol=1e-9, atol=1e-9)


def test_no_rows_few_rows_and_no_features():
    x, y, block = table(3, 5)
    empty = RFactor(4, True, False, np.zeros(6), columns(5))
    empty.add(Batch(columns(5), x[:0], y[:0], None, None, block[:0], missing=5))
    assert (empty.missing, empty.rows.sum(), empty.factor().any()) == (5, 0, False)
    few = factor_of(x, y, block)
    z = rows_of(few, x, y)
    np.testing.assert_allclose(few.factor().T @ few.factor(), z.T @ z, rtol=1e-12, atol=1e-12)
    assert not few.factor()[3:].any() or abs(few.factor()[3:]).max() < 1e-12
    alone = factor_of(np.empty((30, 0)), np.arange(30.0), np.arange(30) % 4)
    assert alone.factor()[1, 1] == pytest.approx(np.sqrt(30 * 899 / 12))


def test_the_state_goes_through_pickle():
    x, y, block = table(50, 3)
    factor = factor_of(x, y, block)
    again = pickle.loads(pickle.dumps(factor))
    expected = factor_of(x, y, block).merge(factor).factor()
    np.testing.assert_array_equal(again.merge(factor).factor(), expected)


def test_batches_are_left_alone():
    x, y, block = table(50, 3)
    weights = np.ones(50)
    for array in (x, y, block, weights):
        array.flags.writeable = False
    factor_of(x, y, block, weights)


def add(x=None, y=None, weights=None, block=None, frequency=False):
    x = np.arange(12.0).reshape(4, 3) if x is None else x
    block = np.arange(4) if block is None else block
    y = np.arange(4.0) if y is None else y
    factor = RFactor(4, True, frequency, np.zeros(4), columns(3))
    factor.add(Batch(columns(3), x, y, weights, None, block, start=100))


def empty(blocks=4, intercept=True, frequency=False, shift=(0.0, 0.0, 0.0, 0.0)):
    return RFactor(blocks, intercept, frequency, np.array(shift), columns(3))


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("not negative, got -1.0 in row 102", lambda: add(weights=np.array([1, 0, -1, 1.0]))),
        ("must be whole, got 0.5 in row 103", lambda: add(weights=np.array([1, 0, 1, 0.5]), frequency=True)),
        ("numbered 0 to 3, got 0 to 4", lambda: add(block=np.array([0, 1, 2, 4]))),
        ("got inf in row 101 of x2", lambda: add(x=np.array([[1, 2, 3], [1, 2, np.inf], [1, 2, 3], [4, 5, 6]]))),
        ("got nan in row 103 of the target", lambda: add(y=np.array([1, 2, 3, np.nan]))),
        ("at least 1, got 0", lambda: empty(0)),
        ("3 columns and the target, got shape", lambda: empty(shift=(0.0, 0.0))),
        ("differ", lambda: empty().merge(empty(5))),
        ("differ", lambda: empty().merge(empty(intercept=False))),
        ("differ", lambda: empty().merge(empty(frequency=True))),
        ("different shifts", lambda: empty().merge(empty(shift=(0.0, 1.0, 0.0, 0.0)))),
    ],
)
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
