import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from lsdr.regression.blocks import block_count, block_of, fold_of_block, halves


@pytest.mark.parametrize("folds", range(2, 41))
def test_block_count_serves_folds_and_halves(folds):
    blocks = block_count(folds)
    assert blocks >= 20
    assert blocks % (2 * folds) == 0
    assert blocks - 2 * folds < 20  # the least such number


@given(
    start=st.integers(0, 100),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    folds=st.sampled_from([1, 2, 5, 10]),
    part=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_row_has_its_block_whatever_the_batches(start, sizes, folds, part):
    whole = block_of(part, 0, start + sum(sizes), 20, seed=3, folds=folds)
    at = start
    for size in sizes:
        np.testing.assert_array_equal(block_of(part, at, size, 20, 3, folds=folds), whole[at : at + size])
        at += size


@pytest.mark.parametrize("folds", [1, 2, 5, 10, 20])
def test_blocks_and_folds_are_as_even_as_can_be(folds):
    blocks = block_of(part=7, start=0, rows=600, blocks=20, seed=1, folds=folds)
    assert (np.sort(blocks.reshape(-1, 20), axis=1) == np.arange(20)).all()
    assert (np.sort(fold_of_block(blocks, folds).reshape(-1, folds), axis=1) == np.arange(folds)).all()


@pytest.mark.parametrize("folds", [1, 5])
def test_no_place_in_a_run_favours_a_block(folds):
    """Chi-square of (place modulo 20, block) over many runs, parts and seeds, and of the pairs of neighbours."""
    runs = np.concatenate(
        [block_of(part, 0, 20 * 100, 20, seed, folds=folds).reshape(-1, 20) for part in range(6) for seed in range(5)]
    )
    counts = np.array([np.bincount(column, minlength=20) for column in runs.T])
    statistic = ((counts - len(runs) / 20) ** 2 / (len(runs) / 20)).sum()
    assert 0.0005 < chi2.sf(statistic, 19 * 19) < 0.9995  # every place and every block is fixed by 19 others
    # A row and the first one of the next run are independent: all 400 pairs alike.
    pairs = np.bincount(runs[:-1, 0] * 20 + runs[1:, 0], minlength=400)
    assert chi2.sf(((pairs - pairs.mean()) ** 2 / pairs.mean()).sum(), 399) > 0.0005


def test_parts_and_seeds_divide_differently():
    first = block_of(0, 0, 2000, 20, seed=0)
    for other in (
        block_of(1, 0, 2000, 20, seed=0),
        block_of(0, 0, 2000, 20, seed=1),
        block_of(0, 20, 2000, 20, seed=0),
    ):
        assert 0.02 < (first == other).mean() < 0.08


def test_a_large_or_negative_seed_is_one():
    assert len(set(map(tuple, (block_of(0, 0, 40, 20, seed).tolist() for seed in (0, -1, 2**63, 2**64 - 2))))) == 4


def test_halves_are_complementary_random_and_balanced_in_the_folds():
    generator = np.random.default_rng(0)
    drawn = [halves(20, generator, folds=5) for _ in range(200)]
    for first, second in drawn:
        assert sorted([*first, *second]) == list(range(20))
        assert np.bincount(fold_of_block(first, 5)).tolist() == [2] * 5
    share = np.bincount(np.concatenate([first for first, _ in drawn]), minlength=20) / 200
    assert (abs(share - 0.5) < 0.14).all()  # four standard errors
    assert len({tuple(first) for first, _ in drawn}) > 150
    assert len(halves(20, generator)[0]) == 10


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("at least 2, got 1", lambda: block_count(1)),
        ("multiple of folds", lambda: block_of(0, 0, 5, 20, 0, folds=3)),
        ("multiple of folds", lambda: block_of(0, 0, 5, 0, 0)),
        ("even multiple", lambda: halves(15, np.random.default_rng(), folds=5)),
    ],
)
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
